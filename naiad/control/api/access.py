"""Says for every route of the API which scope it needs; a test compares this with the application's routes."""

from __future__ import annotations

from typing import Final

PREFIX: Final = "/api/v1"

ACCESS: Final[dict[tuple[str, str], str]] = {
    ("GET", f"{PREFIX}/health"): "public",
    ("GET", f"{PREFIX}/openapi.json"): "any",
    ("GET", f"{PREFIX}/services"): "manage",
    ("POST", f"{PREFIX}/services"): "manage",
    ("GET", f"{PREFIX}/services/{{name}}"): "manage",
    ("DELETE", f"{PREFIX}/services/{{name}}"): "manage",
    ("GET", f"{PREFIX}/services/{{name}}/logs"): "manage",
    ("GET", f"{PREFIX}/services/{{name}}/config.pbtxt"): "manage",
    ("GET", f"{PREFIX}/environments"): "manage",
    ("POST", f"{PREFIX}/environments"): "manage",
    ("GET", f"{PREFIX}/environments/{{name}}"): "manage",
    ("PUT", f"{PREFIX}/environments/{{name}}"): "manage",
    ("DELETE", f"{PREFIX}/environments/{{name}}"): "manage",
    ("POST", f"{PREFIX}/environments/{{name}}/rebuild"): "manage",
    ("GET", f"{PREFIX}/environments/{{name}}/logs"): "manage",
    ("GET", f"{PREFIX}/environments/{{name}}/lock"): "manage",
    ("GET", f"{PREFIX}/keys"): "manage",
    ("POST", f"{PREFIX}/keys"): "manage",
    ("GET", f"{PREFIX}/keys/{{name}}"): "manage",
    ("DELETE", f"{PREFIX}/keys/{{name}}"): "manage",
    ("POST", f"{PREFIX}/uploads"): "manage",
    ("PUT", f"{PREFIX}/uploads/{{upload}}/files/{{path:path}}"): "manage",
    ("DELETE", f"{PREFIX}/uploads/{{upload}}"): "manage",
}
"""(verb, path) → scope; what is missing here needs `admin`."""

UPLOADS: Final = f"{PREFIX}/uploads/{{upload}}/files/{{path:path}}"
"""The only route whose body may be large and is not JSON."""
