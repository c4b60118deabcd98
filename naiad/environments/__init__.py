"""Environments of workers: what they hold, how they are built, where they lie; both planes use this room."""
