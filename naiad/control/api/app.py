"""Builds the API: its routes, its errors, and the gate in front of everything."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp

from naiad.control.api import errors
from naiad.control.api.access import ACCESS, PREFIX
from naiad.control.api.gate import Gate, Hosts, Ring
from naiad.control.api.wall import Wall
from naiad.control.environments import routes as environments
from naiad.control.environments.room import EnvironmentRoom
from naiad.control.keys import routes as keys
from naiad.control.keys.room import KeyRoom
from naiad.control.schema import Document, Problem
from naiad.control.services import routes as services
from naiad.control.services import uploads
from naiad.control.services.room import ServiceRoom

_ERRORS = {status: {"model": Problem, "description": "why not"} for status in (401, 403, 404, 409, 413, 422)}

health = APIRouter(tags=["health"])


class Health(Document):
    """The platform answers."""

    status: str


@health.get("/health")
def read_health() -> Health:
    """Says that the platform answers; needs no key."""
    return Health(status="ok")


def create_app(
    services_room: ServiceRoom, keys_room: KeyRoom, environments_room: EnvironmentRoom, *, version: str
) -> FastAPI:
    """The application without its gate: for tools that read its routes; never served as it is."""
    app = FastAPI(
        title="Naiad",
        version=version,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses={status: dict(description) for status, description in _ERRORS.items()},
    )
    app.state.services = services_room
    app.state.keys = keys_room
    app.state.environments = environments_room
    for router in (health, services.router, environments.router, keys.router, uploads.router):
        app.include_router(router, prefix=PREFIX)
    errors.install(app)
    return app


def behind_gate(app: FastAPI, ring: Ring, hosts: Hosts) -> ASGIApp:
    """The application behind its gate: what a server serves."""
    return Wall(app, gate=Gate(ring, hosts, ACCESS), access=ACCESS)
