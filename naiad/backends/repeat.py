"""One response for each element of an input, with delays: for tests of decoupled models."""

from naiad.backends.base import Backend

BACKEND = Backend(name="repeat")
