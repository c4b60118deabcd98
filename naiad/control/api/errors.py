"""Turns every refusal into `application/problem+json`; the only place of the platform that names an HTTP status."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from naiad.control.api.gate import ANYWHERE
from naiad.control.environments.schema import EnvironmentFields
from naiad.control.keys.schema import KeyFields
from naiad.control.names import nearest
from naiad.control.problems import (
    AlreadyExists,
    FieldProblem,
    Forbidden,
    InUse,
    NoSuchResource,
    Refusal,
    Rejected,
    TooLarge,
)
from naiad.control.schema import Problem, ProblemField, TensorField
from naiad.control.services.schema import AuthField, ModelField, ServiceFields

_log = logging.getLogger("naiad.control")

_STATUS: dict[type[Refusal], int] = {
    Rejected: 422,
    NoSuchResource: 404,
    AlreadyExists: 409,
    InUse: 409,
    TooLarge: 413,
    Forbidden: 403,
}
_OF_STATUS = {
    400: ("BAD_REQUEST", "the request cannot be read"),
    401: ("UNAUTHENTICATED", "no valid key"),
    403: ("FORBIDDEN", "not allowed"),
    404: ("NOT_FOUND", "not found"),
    405: ("METHOD_NOT_ALLOWED", "this verb does nothing here"),
    413: ("TOO_LARGE", "too large"),
    415: ("UNSUPPORTED_MEDIA_TYPE", "the body's media type is not accepted"),
    421: ("MISDIRECTED", "this is not the host that was asked for"),
    500: ("INTERNAL", "an error of the platform"),
}
_FIELDS: dict[str, list[str]] = {
    "model": sorted(ModelField.model_fields),
    "inputs": sorted(TensorField.model_fields),
    "outputs": sorted(TensorField.model_fields),
    "auth": sorted(AuthField.model_fields),
}
_TOP_FIELDS = sorted({*ServiceFields.model_fields, *EnvironmentFields.model_fields, *KeyFields.model_fields})


def problem(
    status: int, detail: str, *, request_id: str, refusal: Refusal | None = None, fields: Sequence[FieldProblem] = ()
) -> JSONResponse:
    """An error answer."""
    code, title = _OF_STATUS.get(status, ("REFUSED", "the request was refused"))
    if refusal is not None:
        code, title = refusal.code, refusal.title
    document = Problem(
        status=status,
        code=code,
        title=title,
        detail=detail,
        request_id=request_id,
        fields=[ProblemField.model_validate(field.document()) for field in fields],
    )
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return JSONResponse(
        document.model_dump(mode="json"), status_code=status, headers=headers, media_type="application/problem+json"
    )


def of_refusal(refusal: Refusal, *, request_id: str) -> JSONResponse:
    """The answer to something the platform refuses."""
    return problem(
        _STATUS[type(refusal)], refusal.detail, request_id=request_id, refusal=refusal, fields=refusal.fields
    )


def install(app: FastAPI) -> None:
    """Has the application answer its errors in this form."""
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(RequestValidationError, _not_valid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _bug)


def request_id(request: Request) -> str:
    """The id that the gate gave this request."""
    return str(request.scope.get("naiad_request_id", ANYWHERE))


async def _refused(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, Refusal):
        raise error
    return of_refusal(error, request_id=request_id(request))


async def _http(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, HTTPException):
        raise error
    detail = f"there is no {request.method} {request.url.path[:200]}" if error.status_code == 404 else str(error.detail)
    return problem(error.status_code, detail, request_id=request_id(request))


async def _bug(request: Request, error: Exception) -> JSONResponse:
    identifier = request_id(request)
    _log.error("request %s failed: %s %s", identifier, request.method, request.url.path, exc_info=error)
    return problem(500, f"an error of the platform; its log names request {identifier}", request_id=identifier)


async def _not_valid(request: Request, error: Exception) -> JSONResponse:
    if not isinstance(error, RequestValidationError):
        raise error
    fields = [_field(entry) for entry in error.errors()]
    detail = "; ".join(f"{field.path}: {field.message}" for field in fields[:5])
    refusal = Rejected(detail, fields=fields)
    return of_refusal(refusal, request_id=request_id(request))


def _field(entry: dict[str, Any]) -> FieldProblem:
    location = list(entry["loc"][1:]) or ["body"]  # the first part says whether it came in the body or the query
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    if entry["type"] == "extra_forbidden":
        known = _FIELDS.get(str(location[0]), _TOP_FIELDS) if len(location) > 1 else _TOP_FIELDS
        meant = nearest(str(location[-1]), known)
        fix = f"did you mean '{meant}'?" if meant else f"known fields: {', '.join(known)}"
        return FieldProblem(path=path, code="UNKNOWN_FIELD", message="there is no such field", fix=fix)
    if entry["type"] == "json_invalid":
        where = f"at character {entry['loc'][-1]}" if isinstance(entry["loc"][-1], int) else ""
        cause = entry.get("ctx", {}).get("error", "")
        return FieldProblem(path="body", code="NOT_JSON", message=f"expected JSON: {cause} {where}".strip())
    message = entry["msg"].removeprefix("Value error, ")
    got = entry.get("input")
    if entry["type"] != "value_error" and isinstance(got, str | int | float | bool | None):
        message = f"{message[:1].lower()}{message[1:]}, got {got!r:.80}"
    return FieldProblem(path=path, code="VALIDATION", message=message)
