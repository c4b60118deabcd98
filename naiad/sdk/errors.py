"""What the client raises.

ApiError              the platform refused (status, code, fields)
├── NotAllowed        401 or 403
└── Missing           404
Unreachable           nothing answers at the URL
NotReady              a service failed, or was not ready in time (carries its diagnosis)
"""

from __future__ import annotations

from naiad.control.schema import Diagnosis, Problem
from naiad.errors import NaiadError


class ApiError(NaiadError):
    """The platform, or a server, refused a request."""

    def __init__(self, status: int, detail: str, problem: Problem | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.problem = problem
        self.code = problem.code if problem else ""


class NotAllowed(ApiError):
    """The key is missing, invalid, or not enough."""


class Missing(ApiError):
    """There is nothing of that name."""


class Unreachable(NaiadError):
    """Nothing answers at the URL."""


class NotReady(NaiadError):
    """A service failed, or was not ready in time."""

    def __init__(self, message: str, diagnosis: Diagnosis | None = None) -> None:
        super().__init__(message)
        self.diagnosis = diagnosis
