"""Builds the API: its routes, its errors, and the gate in front of everything."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp

from naiad.control.api import errors
from naiad.control.api.access import ACCESS, PREFIX
from naiad.control.api.context import Context
from naiad.control.api.gate import Gate, Ring
from naiad.control.api.wall import Wall
from naiad.control.keys import routes as keys
from naiad.control.schema import Document, Problem
from naiad.control.services import routes as services
from naiad.control.services import uploads

_ERRORS = {status: {"model": Problem, "description": "why not"} for status in (401, 403, 404, 409, 413, 422)}

health = APIRouter(tags=["health"])


class Health(Document):
    """The platform answers."""

    status: str


@health.get("/health")
def read_health() -> Health:
    """Says that the platform answers; needs no key."""
    return Health(status="ok")


def create_app(context: Context, *, version: str) -> FastAPI:
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
    app.state.context = context
    for router in (health, services.router, keys.router, uploads.router):
        app.include_router(router, prefix=PREFIX)
    errors.install(app)
    return app


def create_asgi(context: Context, ring: Ring, *, version: str) -> ASGIApp:
    """The application behind its gate: what a server serves."""
    app = create_app(context, version=version)
    return Wall(app, gate=Gate(ring, context.hosts, ACCESS), routes=lambda: app.router.routes)
