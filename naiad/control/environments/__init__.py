"""Environments: what models' workers run in, wanted by a user and built by the loop."""
