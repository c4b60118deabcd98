"""What the platform refuses, in words that need no protocol; `api/errors.py` alone knows the HTTP status.

Refusal
├── Rejected           the request does not say something that can be done (fields name where)
├── NoSuchResource     nothing of that kind has that name
├── AlreadyExists      the name is taken by something else
├── InUse              something else needs it
├── TooLarge           more bytes than are accepted
└── Forbidden          the caller's key may not do this
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from naiad.errors import NaiadError


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldProblem:
    """One field that is wrong: where it is, a stable code, what is wrong, what to do."""

    path: str
    code: str
    message: str
    fix: str = ""

    def document(self) -> dict[str, str]:
        """The problem as a JSON object."""
        return asdict(self)


class Refusal(NaiadError):
    """Root of what the platform refuses; `code` is stable and machine-readable."""

    code = "REFUSED"
    title = "the request was refused"

    def __init__(self, detail: str, *, code: str | None = None, fields: Sequence[FieldProblem] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.fields = tuple(fields)


class Rejected(Refusal):
    """The request names a field that is missing, unknown or wrong."""

    code = "VALIDATION"
    title = "the request has wrong fields"

    @classmethod
    def field(cls, path: str, message: str, *, code: str = "VALIDATION", fix: str = "") -> Rejected:
        """A refusal of one field."""
        problem = FieldProblem(path=path, code=code, message=message, fix=fix)
        return cls(f"{path}: {message}", code=code, fields=[problem])


class NoSuchResource(Refusal):
    """Nothing of that kind has that name."""

    code = "NOT_FOUND"
    title = "not found"


class AlreadyExists(Refusal):
    """The name is taken."""

    code = "ALREADY_EXISTS"
    title = "the name is taken"


class InUse(Refusal):
    """Something else needs it."""

    code = "IN_USE"
    title = "in use"


class TooLarge(Refusal):
    """More bytes than are accepted."""

    code = "TOO_LARGE"
    title = "too large"


class Forbidden(Refusal):
    """The caller's key may not do this."""

    code = "FORBIDDEN"
    title = "not allowed"
