"""The documents of an environment as the API takes and gives them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from naiad.control.names import problem_with, slug
from naiad.control.schema import Document, Line

State = Literal["PENDING", "BUILDING", "READY", "FAILED", "DELETING"]

TITLES_ZH: dict[str, str] = {
    "PENDING": "等待中",
    "BUILDING": "预热",
    "READY": "正常",
    "FAILED": "失败",
    "DELETING": "删除中",
}


def _environment_name(name: str) -> str:
    problem = problem_with(name)
    if problem:
        raise ValueError(f"'{name[:80]}' cannot be an environment's name: {problem}; try '{slug(name)}'")
    return name


EnvironmentName = Annotated[str, AfterValidator(_environment_name)]
Url = Annotated[str, Field(min_length=1, max_length=2000)]


class EnvironmentFields(Document):
    """What a user wants; `spec` is the text of a requirements.txt or environment.yaml."""

    name: EnvironmentName
    manager: Literal["PIP", "CONDA"] = "PIP"
    spec: Annotated[str, Field(max_length=256 << 10)]
    python: Annotated[str, Field(pattern=r"^3\.\d{1,3}(\.\d{1,3})?$")] | None = None
    index_url: Url | None = None
    extra_index_urls: Annotated[list[Url], Field(max_length=16)] = Field(default_factory=list)
    find_links: Annotated[list[Url], Field(max_length=16)] = Field(default_factory=list)
    channels: Annotated[list[Url], Field(max_length=16)] = Field(default_factory=list)
    allow_sdist: bool = False
    offline: bool = False
    """Whether the build may open no connection."""
    description: Annotated[str, Field(max_length=1000)] = ""
    labels: Annotated[dict[Line, Annotated[str, Field(max_length=255)]], Field(max_length=64)] = Field(
        default_factory=dict
    )


class Package(Document):
    """A package that was installed."""

    name: str
    version: str


class EnvironmentStatus(Document):
    """How far an environment is; written by the loop only."""

    state: State
    title_zh: str
    problem: str | None = None
    """Why the last build failed, in the resolver's words; with a good build before it the state stays READY."""
    python: str | None = None
    digest: str | None = None
    """SHA-256 of the lock file of the build in use."""
    built_at: datetime | None = None
    packages: list[Package] = Field(default_factory=list)
    used_by: list[str] = Field(default_factory=list)


class Environment(EnvironmentFields):
    """An environment as the API gives it."""

    status: EnvironmentStatus
    generation: int
    observed_generation: int
    created_at: datetime
    updated_at: datetime


class EnvironmentList(Document):
    """All environments, by name."""

    items: list[Environment]


def stored(fields: EnvironmentFields) -> dict[str, Any]:
    """The fields as the database keeps them."""
    return fields.model_dump(mode="json")
