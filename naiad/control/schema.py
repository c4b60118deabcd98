"""What the documents of all resources share: the strict base class, tensors, a diagnosis, an error."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

DATATYPES = (
    "BOOL",
    *(f"{sign}INT{bits}" for sign in ("U", "") for bits in (8, 16, 32, 64)),
    *("FP16", "FP32", "FP64", "BF16", "BYTES"),
)
_SPELLINGS = {"STRING": "BYTES", "BFLOAT16": "BF16"} | {f"FLOAT{bits}": f"FP{bits}" for bits in (16, 32, 64)}


def datatype(text: object) -> str:
    """The v2 name of a datatype in any accepted spelling: `TYPE_FP32`, `float32`, `torch.float32`."""
    word = str(text).upper().removeprefix("TORCH.").removeprefix("TYPE_")
    word = _SPELLINGS.get(word, word)
    if word not in DATATYPES:
        raise ValueError(f"unknown datatype '{text}'; expected one of {', '.join(DATATYPES)}")
    return word


def _dim(value: int) -> int:
    if value < 1 and value != -1:
        raise ValueError(f"expected a positive integer or -1, got {value}")
    return value


class Document(BaseModel):
    """A document that refuses what it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Datatype = Annotated[str, BeforeValidator(datatype)]
Dim = Annotated[int, Field(strict=True), AfterValidator(_dim)]
Line = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]


class TensorField(Document):
    """An input or output that the user declares; dims may carry the batch first, as `-1`."""

    name: Line
    dtype: Datatype
    dims: Annotated[list[Dim], Field(min_length=1, max_length=64)]
    argument: Line | None = None


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
    evidence: list[str] = Field(default_factory=list)
    fixes: list[Fix] = Field(default_factory=list)


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
    fields: list[ProblemField] = Field(default_factory=list)
