"""What the documents of all resources share: the strict base class, a diagnosis, an error."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Document(BaseModel):
    """A document that refuses what it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Fix(Document):
    """Something that helps, and where one exists the command that does it."""

    text: str
    command: str | None = None


class Diagnosis(Document):
    """Why a service does not serve."""

    stage: str
    code: str
    title: str
    title_zh: str
    evidence: list[str] = []
    fixes: list[Fix] = []


class ProblemField(Document):
    """One field of a request that is wrong."""

    path: str
    code: str
    message: str
    fix: str = ""


class Problem(Document):
    """An error answer, `application/problem+json`."""

    status: int
    code: str
    title: str
    detail: str
    request_id: str
    fields: list[ProblemField] = []
