"""The `naiad` command."""
