"""What a service runs: files and a configuration for one kind of server."""
