"""A stand-in for `naiad serve` at the edge, for tests of the reconcilers and of what watches the server.

It takes the server's arguments, answers the few routes the platform calls, and lets a test steer it by the files it
finds: a model directory that holds `refuse.txt` is refused with that text.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def options(arguments: list[str]) -> dict[str, str]:
    pairs = (argument.removeprefix("--").partition("=") for argument in arguments)
    return {name: value for name, _, value in pairs}


class State:
    def __init__(self, models: Path, key: str) -> None:
        self.models, self.key, self.boot_id = models, key, uuid.uuid4().hex
        self.access: dict = {"generation": -1}
        self.loaded: set[str] = set()
        self.refused: dict[str, str] = {}


class Handler(BaseHTTPRequestHandler):
    state: State
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> dict:
        length = int(self.headers.get("Content-Length") or 0)
        return json.loads(self.rfile.read(length) or b"{}")

    def allowed(self) -> bool:
        if self.headers.get("X-API-Key") == self.state.key:
            return True
        self.answer(401, {"error": "missing or invalid API key"})
        return False

    def do_PUT(self) -> None:
        document = self.body()
        if self.allowed():
            self.state.access = document
            self.answer(200, {"boot_id": self.state.boot_id, "generation": document["generation"]})

    def do_GET(self) -> None:
        self.answer(200, {"access": self.state.access, "loaded": sorted(self.state.loaded)})

    def do_POST(self) -> None:
        self.body()
        if not self.allowed():
            return
        if self.path == "/v2/repository/index":
            rows = [{"name": name, "version": "1", "state": "READY"} for name in sorted(self.state.loaded)]
            rows += [
                {"name": n, "version": "1", "state": "UNAVAILABLE", "reason": r} for n, r in self.state.refused.items()
            ]
            self.answer(200, rows)
            return
        _, _, _, _, model, verb = self.path.split("/")
        folder = self.state.models / model
        refusal = next(iter(folder.glob("*/refuse.txt")), None)
        if verb == "unload":
            self.state.loaded.discard(model)
            self.answer(200, {})
        elif not folder.is_dir():
            self.answer(400, {"error": f"failed to load '{model}', failed to poll from model repository"})
        elif refusal is not None:
            self.state.refused[model] = refusal.read_text()
            self.answer(400, {"error": f"load failed for model '{model}': {refusal.read_text()}"})
        else:
            self.state.loaded.add(model)
            self.answer(200, {})


def main() -> None:
    given = options(sys.argv[1:])
    with os.fdopen(int(given["bootstrap-key-fd"])) as stream:
        key = stream.readline().strip()
    state = State(Path(given["model-repository"]), key)
    Handler.state = state
    server = ThreadingHTTPServer((given["http-address"], int(given["http-port"])), Handler)
    server.daemon_threads = True
    threading.Thread(target=lambda: (os.read(int(given["lifeline-fd"]), 1), os._exit(0)), daemon=True).start()
    address = f"{server.server_address[0]}:{server.server_address[1]}"
    document = {"http": address, "pid": os.getpid(), "boot_id": state.boot_id}
    idle = {}
    for name in ("grpc", "metrics"):
        idle[name] = socket.create_server((given["http-address"], int(given[f"{name}-port"])))
        document[name] = f"{given['http-address']}:{idle[name].getsockname()[1]}"
    os.write(int(given["ready-fd"]), json.dumps(document).encode() + b"\n")
    os.close(int(given["ready-fd"]))
    server.serve_forever()


if __name__ == "__main__":
    main()
