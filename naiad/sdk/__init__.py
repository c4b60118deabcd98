"""The client library of the platform."""
