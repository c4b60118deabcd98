"""Triton's Python models."""

from naiad.backends.base import Backend

BACKEND = Backend(name="python", filenames=("model.py",), describes=True)
