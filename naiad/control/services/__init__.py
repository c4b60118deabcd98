"""Services: what a user wants to be served, and how far it is."""
