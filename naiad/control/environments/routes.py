"""The API's routes of environments: create, change, list, read, rebuild, delete; build log and lock file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from naiad.control.caller import Caller, KeyFacts
from naiad.control.environments.reconciler import specification_of
from naiad.control.environments.room import EnvironmentRoom, Room
from naiad.control.environments.schema import Environment, EnvironmentFields, EnvironmentList
from naiad.control.environments.store import view
from naiad.control.logs import follow, tail
from naiad.control.paths import under_roots
from naiad.control.problems import Forbidden, NoSuchResource, Rejected
from naiad.environments import conda_file
from naiad.environments.errors import NoSuchEnvironment, WrongSpecification
from naiad.environments.reach import ASK, SourceNotAllowed
from naiad.environments.specification import check

router = APIRouter(prefix="/environments", tags=["environments"])


@router.post("", status_code=201)
def create_environment(fields: EnvironmentFields, response: Response, room: Room, caller: Caller) -> Environment:
    """Wants an environment; the loop builds it. The same fields again answer what exists, with 200."""
    row, new = room.store.create(_checked(fields, room, caller))
    if not new:
        response.status_code = 200
    return view(row, room.store.used_by().get(row.name, []))


@router.get("")
def list_environments(room: Room) -> EnvironmentList:
    """All environments, by name."""
    users = room.store.used_by()
    return EnvironmentList(items=[view(row, users.get(row.name, [])) for row in room.store.list()])


@router.get("/{name}")
def read_environment(name: str, room: Room) -> Environment:
    """One environment with its status."""
    return view(room.store.get(name), room.store.used_by().get(name, []))


@router.put("/{name}")
def apply_environment(name: str, fields: EnvironmentFields, room: Room, caller: Caller) -> Environment:
    """Creates or changes an environment; until the new build is good the one before stays in use."""
    if fields.name != name:
        raise Rejected.field("name", f"expected '{name[:80]}' as in the path, got '{fields.name}'")
    row = room.store.apply(_checked(fields, room, caller))
    return view(row, room.store.used_by().get(name, []))


@router.delete("/{name}", status_code=202)
def delete_environment(name: str, room: Room) -> Environment:
    """Wants an environment gone; refused while a service names it."""
    return view(room.store.delete(name), [])


@router.post("/{name}/rebuild", status_code=202)
def rebuild_environment(name: str, room: Room) -> Environment:
    """Builds an environment anew from what its index holds now."""
    row = room.store.rebuild(name)
    return view(row, room.store.used_by().get(name, []))


@router.get("/{name}/logs", response_class=StreamingResponse)
def read_build_log(
    name: str,
    room: Room,
    tail_lines: Annotated[int, Query(alias="tail", ge=0, le=100_000)] = 200,
    follow_file: Annotated[bool, Query(alias="follow")] = False,
) -> Response:
    """The newest lines of the last build's log; with `follow` also those to come until the build ends."""
    row = room.store.get(name)
    begun = row.state == "BUILDING" or row.observed_generation == row.generation
    try:
        path = room.builds.log(name)
    except NoSuchEnvironment:  # the loop has not begun with it
        path = room.builds.log_to_be(name)
    # The log of a build that is about to begin is another file: nothing of the last one's comes before it.
    first = tail_lines if begun else 0
    lines = follow(path, first, stopped=_ended(name, room)) if follow_file else iter([tail(path, tail_lines)])
    shown = (room.builds.shown(block.decode("utf-8", "replace")).encode() for block in lines)
    return StreamingResponse(shown, media_type="text/plain; charset=utf-8")


@router.get("/{name}/lock", response_class=PlainTextResponse)
def read_lock(name: str, room: Room) -> str:
    """The lock file of the build in use: every package with the hashes of its files."""
    row = room.store.get(name)
    if row.built is None:
        raise NoSuchResource(f"environment '{name}' has no lock file: it is {row.state}")
    return room.builds.lock_text(name)


def _ended(name: str, room: EnvironmentRoom) -> Iterator[bool]:
    """Whether there is nothing more to come, asked again and again."""
    while True:
        try:
            row = room.store.get(name)
        except NoSuchResource:
            yield True
            continue
        yield row.observed_generation == row.generation or row.deleted_at is not None


def _checked(fields: EnvironmentFields, room: EnvironmentRoom, caller: KeyFacts) -> EnvironmentFields:
    """The fields with the folders that they name resolved; refuses what cannot be, or not by this caller."""
    # Another index means that this machine connects to a host of the caller's choice; a build from source runs code.
    wide = [f for f in ("index_url", "extra_index_urls", "find_links", "allow_sdist") if getattr(fields, f)]
    wide += ["channels"] if any("://" in channel for channel in fields.channels) else []
    if wide and "admin" not in caller.scopes:
        raise Forbidden(f"'{wide[0]}' of an environment needs a key of scope 'admin'")
    places = [
        place if "://" in place else str(under_roots(place, room.roots, field=f"find_links[{index}]"))
        for index, place in enumerate(fields.find_links)
    ]
    channels = [
        f"file://{under_roots(channel.removeprefix('file://'), room.roots, field=f'channels[{index}]')}"
        if channel.startswith("file://")
        else channel
        for index, channel in enumerate(fields.channels)
    ]
    checked = fields.model_copy(update={"find_links": places, "channels": channels})
    try:
        specification = specification_of(checked.model_dump(mode="json"))
        check(specification)
        room.reach.check_urls(specification)
        if fields.manager == "CONDA":
            file = conda_file.read(fields.spec)
            if "admin" not in caller.scopes and any("://" in channel for channel in file.channels):
                raise Forbidden("a channel's URL in an environment needs a key of scope 'admin'")
            if any(channel.startswith("file://") for channel in file.channels):
                raise WrongSpecification("spec", "a channel in a folder is named by the field 'channels'")
    except SourceNotAllowed as error:
        raise Rejected.field(error.field, error.message, code="SOURCE_NOT_ALLOWED", fix=ASK) from error
    except WrongSpecification as error:
        raise Rejected.field(error.field, error.message) from error
    return checked
