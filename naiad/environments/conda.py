"""Solves and installs conda packages with py-rattler, and what the file lists below `pip:` with uv."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from naiad.environments import build, conda_file
from naiad.environments.commands import LONGEST_SECONDS, ToolMissing, Tools
from naiad.environments.errors import BuildFailed, Stopped
from naiad.environments.interpreters import Interpreter, own
from naiad.environments.lock import Lock, resolve
from naiad.environments.specification import Specification

DEFAULT_CHANNEL = "conda-forge"
_LOOK_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A solved wish."""

    specification: Specification
    records: list[Any]
    """What rattler installs."""
    lock: Lock
    """URL and hash of each conda package, then the lock of pip's part."""
    python: str
    pip: Lock | None
    """What uv installs into it afterwards."""


def solve(specification: Specification, tools: Tools) -> Plan:
    """Solves an environment.yaml; raises `BuildFailed` with the solver's words."""
    file = conda_file.read(specification.text)
    channels = specification.channels or file.channels or (DEFAULT_CHANNEL,)
    python = specification.python or ".".join(own().version.split(".")[:2])
    wanted = [f"python {python}.*" if python.count(".") == 1 else f"python {python}", *file.dependencies]
    if not any(entry.split()[0].split("=")[0].rstrip("<>!") == "numpy" for entry in file.dependencies):
        wanted.append("numpy")
    _say(tools, f"==> solving {', '.join(wanted)} from {', '.join(channels)}")
    records = _solved(channels, wanted, tools)
    _check_places([str(record.url) for record in records], channels, tools)
    lines = [f"{record.url}#sha256:{record.sha256.hex() if record.sha256 else ''}" for record in records]
    version = next((str(record.version) for record in records if record.name.normalized == "python"), "")
    # Resolved for the Python that is about to be installed, by one that is there.
    target = Interpreter(version, own().path)
    pip = resolve("\n".join(file.pip), specification, target, tools) if file.pip else None
    lock = Lock("\n".join(sorted(lines)) + "\n" + (pip.text if pip else ""))
    return Plan(specification=specification, records=records, lock=lock, python=version, pip=pip)


def _check_places(urls: Sequence[str], channels: Sequence[str], tools: Tools) -> None:
    """Raises `BuildFailed` or `SourceNotAllowed`: a channel's index may say that its packages lie elsewhere."""
    elsewhere = next((url for url in urls if not url.startswith("file://")), None)
    if tools.offline and elsewhere is not None:
        raise BuildFailed("solving", f"offline, so package '{elsewhere[:200]}' of a channel in a folder cannot be read")
    if tools.reach is not None:
        tools.reach.check_packages(urls, channels)


def install(plan: Plan, destination: Path, tools: Tools) -> None:
    """Makes the environment at `destination`, there whole or not at all; raises `BuildFailed`."""
    scratch = destination.with_name(f"{destination.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        _say(tools, f"==> installing {len(plan.records)} conda packages")
        _installed(plan.records, scratch, destination, tools)
        if plan.pip is not None:
            python = scratch / "bin" / "python"
            build.install(plan.specification, plan.pip, python=python, tools=tools)
        scratch.rename(destination)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _solved(channels: tuple[str, ...], wanted: list[str], tools: Tools) -> list[Any]:
    rattler = _rattler()
    if tools.offline and any(not channel.startswith("file://") for channel in channels):
        remote = next(channel for channel in channels if not channel.startswith("file://"))
        raise BuildFailed("solving", f"offline, so channel '{remote}' cannot be read; name one by file://")

    async def ask() -> Any:
        return await rattler.solve(
            sources=[rattler.Channel(channel) for channel in channels],
            specs=wanted,
            platforms=[str(rattler.Subdir.current()), "noarch"],
            virtual_packages=rattler.VirtualPackage.detect(),
        )

    try:
        found: list[Any] = asyncio.run(_watched(ask(), tools, "solving"))
        return found
    except (Stopped, BuildFailed):
        raise
    except Exception as error:  # its errors have no common root
        _say(tools, str(error))
        raise BuildFailed("solving", str(error)) from error


def _installed(records: list[Any], scratch: Path, destination: Path, tools: Tools) -> None:
    rattler = _rattler()

    async def act() -> None:
        await rattler.install(
            records,
            target_prefix=scratch,
            alternative_target_prefix=destination,  # what packages write into their files
            execute_link_scripts=False,
            show_progress=False,
        )

    try:
        asyncio.run(_watched(act(), tools, "installing"))
    except (Stopped, BuildFailed):
        raise
    except Exception as error:  # its errors have no common root
        raise BuildFailed("installing", str(error)) from error


async def _watched(work: Coroutine[Any, Any, Any], tools: Tools, step: str) -> Any:
    """The result of some work, unless the process ends first or it takes too long."""
    task = asyncio.ensure_future(work)
    end = asyncio.get_running_loop().time() + LONGEST_SECONDS
    while not task.done():
        await asyncio.wait({task}, timeout=_LOOK_SECONDS)
        late = asyncio.get_running_loop().time() > end
        if not task.done() and (tools.running.stopped or late):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            if late:
                raise BuildFailed(step, f"it took longer than {LONGEST_SECONDS:.0f} s")
            raise Stopped(f"{step} was stopped")
    return task.result()


def _rattler() -> Any:
    try:
        import rattler
    except ImportError:
        raise ToolMissing("conda packages are installed by py-rattler: pip install 'naiad[environments]'") from None
    return rattler


def _say(tools: Tools, text: str) -> None:
    with tools.log.open("ab") as stream:
        stream.write(f"{text}\n".encode())
