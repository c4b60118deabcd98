"""Log lines of Triton's Python models."""

from __future__ import annotations

import enum
import inspect
import os

from naiad_worker import output


class LogLevel(enum.IntEnum):
    """How much a log line matters."""

    INFO = 0
    WARNING = 1
    ERROR = 2
    VERBOSE = 3


class Logger:
    """Writes lines to the server's log, each with its level and the place in the model that says it."""

    LogLevel = LogLevel
    INFO, WARNING, ERROR, VERBOSE = LogLevel.INFO, LogLevel.WARNING, LogLevel.ERROR, LogLevel.VERBOSE

    @staticmethod
    def log(message: str, level: LogLevel = LogLevel.INFO) -> None:
        """One line of this level."""
        _write(message, level)

    @staticmethod
    def log_info(message: str) -> None:
        """One line of information."""
        _write(message, LogLevel.INFO)

    @staticmethod
    def log_warn(message: str) -> None:
        """One warning."""
        _write(message, LogLevel.WARNING)

    @staticmethod
    def log_error(message: str) -> None:
        """One error."""
        _write(message, LogLevel.ERROR)

    @staticmethod
    def log_verbose(message: str) -> None:
        """One line for those who look closely: left out unless the server's log is verbose."""
        _write(message, LogLevel.VERBOSE)


_LETTERS = {
    LogLevel.INFO: output.INFO,
    LogLevel.WARNING: output.WARNING,
    LogLevel.ERROR: output.ERROR,
    LogLevel.VERBOSE: output.VERBOSE,
}
VERBOSE = "WORKER_LOG_VERBOSE"
"""Set in the environment of a worker whose server logs verbosely."""


def _write(message: str, level: LogLevel) -> None:
    if level == LogLevel.VERBOSE and VERBOSE not in os.environ:
        return
    frame = inspect.currentframe()
    caller = frame.f_back.f_back if frame is not None and frame.f_back is not None else None
    place = f"{os.path.basename(caller.f_code.co_filename)}:{caller.f_lineno}: " if caller is not None else ""
    output.say(_LETTERS[level], f"{place}{message}")
