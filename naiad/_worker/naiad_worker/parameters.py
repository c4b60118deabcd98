"""The `parameters` of a configuration: read by name, and named in the log where a backend makes nothing of them."""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any

# Read by the server, whatever the backend: the interpreter, and how many threads an operation may use.
_SERVERS = {
    "EXECUTION_ENV_PATH",
    "INTRA_OP_THREAD_COUNT",
    "NUM_THREADS",
    "TF_NUM_INTRA_THREADS",
    "intra_op_thread_count",
}
_OWN = "naiad."


def parameter(config: dict[str, Any], name: str) -> str:
    """A parameter's text, "" where it is not written."""
    return str(config.get("parameters", {}).get(name, {}).get("string_value", "")).strip()


def name_unused(config: dict[str, Any], backend: str, known: Collection[str], prefix: str = "") -> None:
    """Says in the log which parameters change nothing: `known` are those that do, as do names with this prefix."""
    for name in sorted(config.get("parameters", {})):
        used = name in known or name in _SERVERS or name.startswith(_OWN) or (prefix and name.startswith(prefix))
        if not used:
            print(f"WARNING: parameter {name}: the {backend} backend does not use it", file=sys.stderr, flush=True)
