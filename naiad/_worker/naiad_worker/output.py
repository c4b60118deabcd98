"""Lines of a worker that keep their level on the way to the server's log."""

from __future__ import annotations

import logging
import sys
import traceback
import warnings
from typing import Any

ERROR, WARNING, INFO, VERBOSE = "E", "W", "I", "V"
_MARK = "\x01"
"""In front of a level's letter and a line: what the server reads off again (docs/internals/worker-protocol.md §5)."""


def say(level: str, text: str) -> None:
    """Writes a text to the log; each of its lines has the level."""
    text = text.encode("utf-8", "backslashreplace").decode()
    lines = "".join(f"{_MARK}{level}{line}\n" for line in text.splitlines() or [""])
    try:
        sys.stderr.write(lines)
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):
        pass  # a model may have closed or replaced it: nothing that runs may fail for a line of the log


def say_error(error: BaseException) -> None:
    """Writes an exception with its traceback to the log; one that cannot be printed is passed over."""
    try:
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    except Exception:
        text = f"{type(error).__name__}: (its message cannot be printed)"
    say(ERROR, text)


class _Last(logging.Handler):
    """Where records go for which a model has configured nothing."""

    def emit(self, record: logging.LogRecord) -> None:
        """One record with its level."""
        level = ERROR if record.levelno >= logging.ERROR else WARNING
        say(level, self.format(record))


def install() -> None:
    """From now on warnings of Python and of `logging` without handlers keep their level."""

    def show(message: Any, category: Any, filename: str, lineno: int, *more: Any, **named: Any) -> None:
        file, line = (*more, named.get("file"), named.get("line"))[:2]
        text = warnings.formatwarning(message, category, filename, lineno, line)
        if file is not None:
            file.write(text)
        else:
            say(WARNING, text)

    warnings.showwarning = show
    logging.lastResort = _Last(logging.WARNING)
