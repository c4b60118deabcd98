"""Carries Python's log records to the core, which writes them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable


class CoreHandler(logging.Handler):
    """Hands each record to the core as JSON; `extra={"fields": {…}}` becomes fields of the record."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        """One record; a fault in it is reported the way the library does."""
        try:
            document = {"level": record.levelname.lower(), "message": record.getMessage()}
            document.update(getattr(record, "fields", {}))
            if record.exc_info:
                document["traceback"] = logging.Formatter().formatException(record.exc_info)
            self._write(json.dumps(document, default=str).encode())
        except Exception:
            self.handleError(record)


def install(write: Callable[[bytes], None]) -> None:
    """Sends the records of `naiad.*` to the core."""
    logger = logging.getLogger("naiad")
    logger.handlers = [CoreHandler(write)]
    logger.setLevel(logging.DEBUG)  # the core knows which levels are wanted
    logger.propagate = False
