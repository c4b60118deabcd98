"""The API's routes of uploads: begin one, put its files, throw it away."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from naiad.control.problems import Rejected
from naiad.control.schema import Document
from naiad.control.services.room import Room

router = APIRouter(prefix="/uploads", tags=["uploads"])


class Upload(Document):
    """A new upload."""

    id: str


class UploadedFile(Document):
    """A file that has arrived whole."""

    path: str
    size: int


@router.post("", status_code=201)
def begin_upload(room: Room) -> Upload:
    """Begins an upload; a service is then created from a path in it."""
    return Upload(id=room.sources.begin())


@router.put("/{upload}/files/{path:path}", status_code=201)
async def put_file(upload: str, path: str, request: Request, room: Room) -> UploadedFile:
    """Stores one file; it appears when all of it has arrived."""
    length = request.headers.get("content-length")
    declared = int(length) if length is not None and length.isdigit() else None
    incoming = await run_in_threadpool(room.sources.receive, upload, path, declared=declared)
    try:
        async for block in request.stream():
            await run_in_threadpool(incoming.write, block)
        size = await run_in_threadpool(incoming.finish)
    except ClientDisconnect as error:
        raise Rejected.field("body", "the connection ended before all bytes came", code="SIZE_MISMATCH") from error
    finally:
        incoming.abandon()
    return UploadedFile(path=path, size=size)


@router.delete("/{upload}", status_code=204)
def discard_upload(upload: str, room: Room) -> None:
    """Removes an upload that no service was made from."""
    room.sources.discard(upload)
