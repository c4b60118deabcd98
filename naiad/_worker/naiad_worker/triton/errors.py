"""Errors of Triton's Python models: what a response carries, and what the API raises."""

from __future__ import annotations


class TritonError:
    """Why a request gets no tensors: a text for the client and one of Triton's codes."""

    UNKNOWN = 0
    INTERNAL = 1
    NOT_FOUND = 2
    INVALID_ARG = 3
    UNAVAILABLE = 4
    UNSUPPORTED = 5
    ALREADY_EXISTS = 6
    CANCELLED = 7

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        if code not in range(8):
            raise TritonModelException(
                f"TritonError: expected a code of 0 to 7 such as TritonError.INTERNAL, got {code}"
            )
        self._message = str(message)
        self._code = code

    def code(self) -> int:
        """The code."""
        return self._code

    def message(self) -> str:
        """The text."""
        return self._message

    def __str__(self) -> str:
        return self._message


class TritonModelException(Exception):
    """A call of the API that cannot be done; the text says why."""

    def message(self) -> str:
        """The text."""
        return str(self)


def later(what: str) -> TritonModelException:
    """The refusal of a part of the API that is not there yet."""
    return TritonModelException(f"{what} with a later version of Naiad")
