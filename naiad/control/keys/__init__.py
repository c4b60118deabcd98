"""API keys: who may call what, and the snapshot that servers are given."""
