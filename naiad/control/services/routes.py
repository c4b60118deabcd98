"""The API's routes of services: create, list, read, delete; logs and the generated configuration."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from naiad.control.caller import Caller
from naiad.control.logs import follow, tail
from naiad.control.problems import NoSuchResource
from naiad.control.services.room import Reach, Room
from naiad.control.services.schema import (
    Access,
    AuthField,
    CreatedKey,
    CreatedService,
    Service,
    ServiceFields,
    ServiceList,
    ServiceStatus,
)
from naiad.control.store import ServiceRow

router = APIRouter(prefix="/services", tags=["services"])


@router.post("", status_code=201)
def create_service(
    fields: ServiceFields, request: Request, response: Response, room: Room, caller: Caller
) -> CreatedService:
    """Wants a service; the loop does the rest. The same fields again answer what exists, with 200."""
    existing = _existing(room, fields.name)
    if existing is None:
        room.sources.locate(fields.model)  # refuses here, where the user can still correct the path
    creation = room.store.create(fields, created_by=caller.name)
    if not creation.new:
        response.status_code = 200
    room.settle()
    key = None
    if creation.key is not None and creation.key_name is not None:
        key = CreatedKey(name=creation.key_name, key=creation.key.reveal())
    document = _view(creation.row, room.reach(request, creation.row.name)).model_dump()
    return CreatedService.model_validate(document | {"key": key})


@router.get("")
def list_services(request: Request, room: Room) -> ServiceList:
    """All services, by name."""
    rows = room.store.list()
    return ServiceList(items=[_view(row, room.reach(request, row.name)) for row in rows])


@router.get("/{name}")
def read_service(name: str, request: Request, room: Room) -> Service:
    """One service with its status."""
    return _view(room.store.get(name), room.reach(request, name))


@router.delete("/{name}", status_code=202)
def delete_service(name: str, request: Request, room: Room) -> Service:
    """Wants a service gone."""
    row = room.store.delete(name)
    room.settle()
    return _view(row, room.reach(request, name))


@router.get("/{name}/logs", response_class=StreamingResponse)
def read_logs(
    name: str,
    room: Room,
    tail_lines: Annotated[int, Query(alias="tail", ge=0, le=100_000)] = 200,
    follow_file: Annotated[bool, Query(alias="follow")] = False,
) -> Response:
    """The newest log lines of a service, one JSON object a line; with `follow` also those to come."""
    room.store.get(name)
    path = room.logs / f"{name}.jsonl"
    lines = follow(path, tail_lines) if follow_file else iter([tail(path, tail_lines)])
    return StreamingResponse(lines, media_type="application/x-ndjson")


@router.get("/{name}/config.pbtxt", response_class=PlainTextResponse)
def read_configuration(name: str, room: Room) -> str:
    """The model configuration that was generated for the service."""
    row = room.store.get(name)
    text = room.store.version(name, row.version).config_pbtxt
    if text is None:
        raise NoSuchResource(f"service '{name}' has no generated configuration: everything is detected from the file")
    return text


def _existing(room: Room, name: str) -> ServiceRow | None:
    try:
        return room.store.get(name)
    except NoSuchResource:
        return None


def _view(row: ServiceRow, reach: Reach | None) -> Service:
    auth = AuthField.model_validate(row.fields["auth"])
    headers = [] if auth.mode == "public" else ["Authorization: Bearer <key>", "X-API-Key: <key>"]
    access = None
    if reach is not None:
        infer = f"{reach.http}/infer"
        access = Access(http=reach.http, infer=infer, grpc=reach.grpc, metrics=reach.metrics, headers=headers)
    status = ServiceStatus.model_validate(
        {
            "state": row.state,
            "version": f"v{row.version}",
            "access": access,
            "diagnosis": row.diagnosis,
            "timeline": row.timeline,
        }
    )
    return Service.model_validate(
        row.fields
        | {
            "status": status,
            "generation": row.generation,
            "observed_generation": row.observed_generation,
            "created_at": row.created_at,
            "updated_at": row.updated_at,
        }
    )
