"""The worker: one process that holds exactly one instance of one model. Standard library and numpy only."""

PROTOCOL = 1
