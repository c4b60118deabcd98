"""Where services run."""
