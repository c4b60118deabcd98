"""Runs a service on `naiad serve`: its files as a model directory, and the calls that load and unload it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from naiad.control.diagnosis import Broken
from naiad.control.engines import clone, trust
from naiad.control.engines.configuration import Declared, generate
from naiad.control.engines.layout import CONFIGURATION, Layout, find
from naiad.errors import NaiadError
from naiad.runtimes.base import Running
from naiad.signature.onnx import weights_beside

_CALL_SECONDS = 10.0
_LOAD_SECONDS = 300.0


class ServerUnavailable(NaiadError):
    """The server did not answer, or could not at the moment; the same call may succeed later."""


class LoadRefused(NaiadError):
    """The server says that this model cannot be loaded; the same call would fail again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A materialised version: the digest of its files and the configuration that was generated."""

    digest: str
    config_pbtxt: str | None


def _files(layout: Layout, target: Path) -> list[clone.Copy]:
    """What to copy; with a single ONNX file come the files beside it that hold its weights."""
    if not layout.content.is_file():
        return clone.files_of(layout.content, target)
    file = layout.content.resolve()
    beside = weights_beside(file) if file.suffix.lower() == ".onnx" else ()
    return [(layout.content, target), *((file.parent / name, target.parent / name) for name in beside)]


def internal_name(service: str, version: int) -> str:
    """The model's name on the server; service names hold no dot, so it is unambiguous."""
    return f"{service}.v{version}"


class ModelFolder:
    """The folder of the state that the server reads models from."""

    def __init__(self, models: Path, scratch: Path) -> None:
        self._models = models
        self._scratch = scratch
        for folder in (models, scratch):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def has(self, model: str) -> bool:
        """Whether the model directory is there, complete: it appears by one rename."""
        return (self._models / model).is_dir()

    def prepare(
        self, model: str, declared: Declared, source: Path, *, immutable: bool, trusted: bool = False
    ) -> Prepared:
        """Makes the model directory from the files at `source`; all of it appears, or nothing.

        Files that hold code are refused (`Broken`) unless they are trusted.
        """
        layout = find(source)
        building = self._scratch / model
        shutil.rmtree(building, ignore_errors=True)
        version = building / str(layout.version)
        version.mkdir(parents=True, mode=0o700)
        try:
            target = version / layout.name
            copies = _files(layout, target)
            text = layout.configuration.read_text("utf-8") if layout.configuration else None
            if not trusted:
                trust.refuse_code([source for source, _ in copies], text)
            digest = clone.all_of(copies, hard_link=immutable)
            pickle = trusted and trust.is_pickle([source for source, _ in copies], text)
            config = generate(model, text, replace(declared, pickle=pickle))
            if config is not None:
                (building / CONFIGURATION).write_text(config, "utf-8")
            clone.sync_tree(building)
            os.replace(building, self._models / model)
            clone.sync_folder(self._models)
        except OSError as error:
            raise Broken(
                "DISK_FULL" if error.errno == 28 else "FILE_UNREADABLE", error.strerror or str(error)
            ) from error
        finally:
            shutil.rmtree(building, ignore_errors=True)
        return Prepared(digest=digest, config_pbtxt=config)

    def remove(self, model: str) -> None:
        """Removes a model directory; half of one is never seen under its name."""
        grave = self._scratch / f"{model}.removed"
        shutil.rmtree(grave, ignore_errors=True)
        try:
            os.replace(self._models / model, grave)
        except FileNotFoundError:
            return
        shutil.rmtree(grave, ignore_errors=True)

    def names(self) -> set[str]:
        """All model directories."""
        return {child.name for child in self._models.iterdir() if child.is_dir()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelState:
    """What the server's index says about a model."""

    state: str
    reason: str


class TensorServer:
    """The calls that the platform makes to one `naiad serve`."""

    def __init__(self, running: Running, *, transport: httpx.BaseTransport | None = None) -> None:
        self._client = httpx.Client(
            base_url=f"http://{running.http}",
            headers={"X-API-Key": running.key.reveal()},
            timeout=_CALL_SECONDS,
            transport=transport,
            trust_env=False,
        )

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    def index(self) -> dict[str, ModelState]:
        """The newest state of each model by name."""
        rows = self._post("/v2/repository/index", {}).json()
        states: dict[str, ModelState] = {}
        for row in rows:
            state = ModelState(state=row.get("state", ""), reason=row.get("reason", ""))
            if row["name"] not in states or state.state == "READY":
                states[row["name"]] = state
        return states

    def load(self, model: str) -> None:
        """Loads a model and returns when it is ready; raises `LoadRefused` with the server's words."""
        answer = self._send("POST", f"/v2/repository/models/{model}/load", {}, timeout=_LOAD_SECONDS)
        if answer.status_code in (401, 403, 408, 429, 502, 503, 504):
            raise ServerUnavailable(_message(answer))
        if answer.is_error:
            raise LoadRefused(_message(answer))

    def unload(self, model: str) -> None:
        """Unloads a model; one that is not loaded is no error."""
        answer = self._send("POST", f"/v2/repository/models/{model}/unload", {}, timeout=_LOAD_SECONDS)
        if answer.status_code >= 500 or answer.status_code in (401, 403):
            raise ServerUnavailable(_message(answer))

    def put_access(self, snapshot: dict[str, Any]) -> tuple[str, int]:
        """Hands over the whole access snapshot; answers the server's boot id and the generation it now has."""
        answer = self._send("PUT", "/naiad/v1/access", snapshot)
        if answer.is_error:
            raise ServerUnavailable(_message(answer))
        document = answer.json()
        return document["boot_id"], document["generation"]

    def _post(self, path: str, document: dict[str, Any]) -> httpx.Response:
        answer = self._send("POST", path, document)
        if answer.is_error:
            raise ServerUnavailable(_message(answer))
        return answer

    def _send(
        self, verb: str, path: str, document: dict[str, Any], *, timeout: float = _CALL_SECONDS
    ) -> httpx.Response:
        try:
            return self._client.request(verb, path, json=document, timeout=timeout)
        except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: closed meanwhile, as the server is a new one
            raise ServerUnavailable(f"{verb} {path}: {type(error).__name__}: {error}") from error


def _message(answer: httpx.Response) -> str:
    try:
        document = answer.json()
    except ValueError:
        return f"the server answered {answer.status_code}"
    message = document.get("error") if isinstance(document, dict) else None
    return str(message or f"the server answered {answer.status_code}")
