"""The platform's HTTP API: one application, one gate, one form of error."""
