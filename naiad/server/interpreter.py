"""Chooses the Python that a model's workers run under: the server's own, a named environment, or one that it brings."""

from __future__ import annotations

import logging
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from naiad.backends.base import Backend
from naiad.environments import packed
from naiad.environments.check import Begun, Report, Start, add, as_it_is, look, require
from naiad.environments.errors import BadArchive, Unfit
from naiad.environments.leases import Lease
from naiad.environments.store import Store
from naiad.errors import ConfigError, LoadError
from naiad.repository.paths import below, shown
from naiad.server.allowed import worker_environment

log = logging.getLogger("naiad.interpreter")

PATH, NAME = "EXECUTION_ENV_PATH", "naiad.environment"
"""Parameters of a model configuration: Triton's, and Naiad's own."""
MODEL_DIRECTORY = "$$TRITON_MODEL_DIRECTORY"
_MISSING = re.compile(r"No module named '([\w.]+)'")
_NAMED = re.compile(r"([a-z][-a-z0-9]*)(?:@([0-9a-f]{8,64}))?", re.ASCII)
_UNPACK_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class InterpreterOptions:
    """Where environments come from."""

    own: str
    """The server's own interpreter."""
    environments: Path
    """Folder of named environments and of extracted archives."""
    repositories: tuple[Path, ...]
    allow_paths: bool
    """Whether a model may bring an environment by `EXECUTION_ENV_PATH`."""
    environ: Mapping[str, str]
    start: Start = as_it_is
    """How programs of an environment are started; a dry run starts them behind a fence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """The Python of a worker, its variables, and what keeps its environment from being removed."""

    python: str
    environment: Mapping[str, str] = field(default_factory=dict)
    lease: Lease | None = None


class Interpreters:
    """Answers which interpreter a model wants; safe to be called from several threads."""

    def __init__(self, options: InterpreterOptions) -> None:
        self._options = options
        self._store = Store(options.environments, environ=options.environ)
        self._looked: dict[tuple[Path, tuple[str, ...]], Report] = {}

    def choose(self, message: Any, source: str, directory: Path, backend: Backend) -> Interpreter:
        """The interpreter that a configuration asks for, looked at: it runs, and holds what the backend needs.

        Raises `ConfigError`, `NoSuchEnvironment`, `BadArchive` or `Unfit`.
        """
        path, name = _parameter(message, PATH), _parameter(message, NAME)
        if path and name:
            raise ConfigError(f"parameters: expected {PATH} or {NAME}, got both")
        lease: Lease | None
        if name:
            where = f"environment '{shown(name)}'"
            prefix, lease = self._named(name)
        elif path:
            where = f"{PATH} '{shown(path)}'"
            prefix, lease = self._brought(path, source, directory, where)
        else:
            return Interpreter(python=self._options.own)
        python = _python_of(prefix, where)
        variables = variables_of(prefix, self._options.environ)
        if path and prefix.resolve().is_relative_to(directory.resolve()):
            variables["PYTHONDONTWRITEBYTECODE"] = "1"  # a file that appears there is a change of the model to a poll
        try:
            begun = Begun(environment=self._inherited(variables), start=self._options.start)
            looked = (python, ("numpy", *backend.needs))
            report = self._looked.get(looked) or look(*looked, begun, where=where)
            if lease is not None:  # what is held changes no more; a folder may
                self._looked[looked] = report
            require(report, backend.needs, backend=backend.name, where=where)
        except Unfit as error:
            raise _without(error, prefix) from None
        return Interpreter(python=str(python), environment=variables, lease=lease)

    def _inherited(self, variables: Mapping[str, str]) -> dict[str, str]:
        return worker_environment(self._options.environ, variables)

    def _named(self, name: str) -> tuple[Path, Lease]:
        match = _NAMED.fullmatch(name)
        if match is None:
            raise ConfigError(f"parameters: {NAME}: expected the name of an environment, got '{shown(name[:80])}'")
        return self._store.lease(match[1], match[2] or "")

    def _brought(self, text: str, source: str, directory: Path, where: str) -> tuple[Path, Lease | None]:
        """The folder of an environment that lies with the model or on this machine; one that was extracted is held."""
        if not self._options.allow_paths:
            raise ConfigError(f"{where}: this server takes named environments only; write the parameter {NAME}")
        place = self._place(text, source, directory, where)
        if place.is_dir():
            return packed.root_of(place), None
        if not place.is_file():
            raise ConfigError(f"{where}: there is no such file or folder")
        try:
            return self._store.archives.extracted(place, self._unpack)
        except BadArchive as error:
            raise BadArchive(f"{where}: {error}") from error
        except OSError as error:
            raise BadArchive(f"{where}: the archive cannot be extracted: {error.strerror}") from error

    def _place(self, text: str, source: str, directory: Path, where: str) -> Path:
        if text.startswith(f"{MODEL_DIRECTORY}/"):
            try:
                return below(directory, text.removeprefix(f"{MODEL_DIRECTORY}/"))
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from error
        path = Path(text)
        if not path.is_absolute() or ".." in path.parts or "\0" in text:
            raise ConfigError(f"{where}: expected an absolute path or one that begins with {MODEL_DIRECTORY}/")
        # A configuration that came with a load call was not written by whoever named the repository (C2).
        own = any(directory.is_relative_to(repository) for repository in self._options.repositories)
        if not own or source.startswith("load parameter"):
            raise ConfigError(f"{where}: a load call names no path outside of the model's directory")
        return path

    def _unpack(self, prefix: Path) -> None:
        """Has a packed conda environment write its new place into its files, by its own interpreter."""
        script = prefix / "bin" / "conda-unpack"
        if not script.is_file() or script.is_symlink():
            return
        python = _python_of(prefix, "the archive")
        environment = self._inherited(variables_of(prefix, self._options.environ))
        command, environment = self._options.start([str(python), "-I", str(script)], environment)
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_UNPACK_SECONDS,
                cwd=prefix,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            log.warning("conda-unpack of an environment does not run: %s", error)
            return
        if done.returncode:
            words = done.stderr.decode("utf-8", "replace").strip()[-500:]
            log.warning("conda-unpack of an environment failed, it may hold wrong paths: %s", words)


def explained(error: LoadError, message: Any) -> LoadError:
    """The error of a load, with what to add where a module is missing in the environment that the model names."""
    missing = _MISSING.search(error.cause)
    if missing is not None and (_parameter(message, NAME) or _parameter(message, PATH)):
        error.fix = add(missing[1])
        if error.code != "ENV_MISSING_BACKEND":
            error.coded("MISSING_MODULE")
    return error


def variables_of(prefix: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """What an activated environment sets, so that its programs and libraries come first."""
    search = [str(prefix / "bin"), environ.get("PATH", "")]
    variables = {"PATH": os.pathsep.join(filter(None, search)), "PYTHONNOUSERSITE": "1"}
    if (prefix / "pyvenv.cfg").is_file():
        return {**variables, "VIRTUAL_ENV": str(prefix)}
    libraries = [str(prefix / "lib"), environ.get("LD_LIBRARY_PATH", "")]
    variables["LD_LIBRARY_PATH"] = os.pathsep.join(filter(None, libraries))
    return {**variables, "CONDA_PREFIX": str(prefix), "VIRTUAL_ENV": ""}


def _python_of(prefix: Path, where: str) -> Path:
    for name in ("python", "python3"):
        if (prefix / "bin" / name).is_file():
            return prefix / "bin" / name
    raise Unfit("ENV_UNUSABLE", f"{where}: it has no bin/python", "name an environment's folder or packed archive")


def _parameter(message: Any, name: str) -> str:
    return str(message.parameters[name].string_value) if name in message.parameters else ""


def _without(error: Unfit, prefix: Path) -> Unfit:
    """The error without where on this machine the environment lies: clients read it (W69)."""
    text = str(error).removesuffix(f" ({error.code})")
    for place in (str(prefix), str(prefix.resolve())):
        text = text.replace(f"{place}/", "")
    return Unfit(error.code, text, error.fix)
