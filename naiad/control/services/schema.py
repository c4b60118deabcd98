"""The documents of a service as the API takes and gives them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from naiad.control.names import problem_with, slug
from naiad.control.schema import Diagnosis, Document, Line, TensorField

State = Literal["Pending", "Preparing", "Starting", "Ready", "Failed", "Deleting"]


def _service_name(name: str) -> str:
    problem = problem_with(name)
    if problem:
        raise ValueError(f"'{name[:80]}' cannot be a service's name: {problem}; try '{slug(name)}'")
    return name


ServiceName = Annotated[str, AfterValidator(_service_name)]


class ModelField(Document):
    """Where the model's files are: a path under an allowed root, or in an upload."""

    path: Annotated[str, Field(min_length=1, max_length=4096)]
    upload: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    trust: bool = False
    """Whether code among the files (`model.py`) may run."""


class AuthField(Document):
    """Who may call the service."""

    mode: Literal["key", "public"] = "key"
    keys: Annotated[list[Line], Field(max_length=100)] = Field(default_factory=list)


class ServiceFields(Document):
    """What a user wants; everything but the name and the model has a default."""

    name: ServiceName
    model: ModelField
    inputs: Annotated[list[TensorField], Field(max_length=1024)] = Field(default_factory=list)
    outputs: Annotated[list[TensorField], Field(max_length=1024)] = Field(default_factory=list)
    environment: Annotated[str, Field(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=63)] | None = None
    """What its workers run in; None is the server's own interpreter."""
    auth: AuthField = AuthField()
    description: Annotated[str, Field(max_length=1000)] = ""
    labels: Annotated[dict[Line, Annotated[str, Field(max_length=255)]], Field(max_length=64)] = Field(
        default_factory=dict
    )

    @model_validator(mode="after")
    def _tensor_names_differ(self) -> ServiceFields:
        for kind, tensors in (("inputs", self.inputs), ("outputs", self.outputs)):
            names = [tensor.name for tensor in tensors]
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"{kind}: '{twice}' is declared twice")
        return self


class Step(Document):
    """One step on the way, as the timeline keeps it."""

    step: str
    started: datetime
    took: float | None = None


class Access(Document):
    """How the service is reached from where the caller is."""

    http: str
    infer: str
    grpc: str | None = None
    """`host:port` for gRPC clients."""
    metrics: str | None = None
    """URL of the metrics of the server that runs the service; a key needs the scope `metrics`."""
    headers: list[str]


class ServiceStatus(Document):
    """How far a service is; written by the loop only."""

    state: State
    version: str
    access: Access | None = None
    diagnosis: Diagnosis | None = None
    timeline: list[Step] = Field(default_factory=list)


class Service(ServiceFields):
    """A service as the API gives it."""

    status: ServiceStatus
    generation: int
    observed_generation: int
    created_at: datetime
    updated_at: datetime


class CreatedKey(Document):
    """The key made with a service; its secret is shown this once."""

    name: str
    key: str


class CreatedService(Service):
    """The answer to a create: the service, and the secret of a key that was made for it."""

    key: CreatedKey | None = None


class ServiceList(Document):
    """All services, by name."""

    items: list[Service]


def stored(fields: ServiceFields) -> dict[str, Any]:
    """The fields as the database keeps them."""
    return fields.model_dump(mode="json")
