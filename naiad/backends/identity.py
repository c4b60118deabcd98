"""Inputs come back as outputs; needs no file."""

from naiad.backends.base import Backend

BACKEND = Backend(name="identity")
