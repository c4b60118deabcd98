"""Backends, server side: which one a model needs, and what it needs to be told before it can run."""
