"""n responses to an input of n: for tests of decoupled models."""

from naiad.backends.base import Backend

BACKEND = Backend(name="square")
