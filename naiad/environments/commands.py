"""Runs uv: argument lists only, listed variables only, its words streamed into the build log (D1, E6)."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from naiad.environments.errors import BuildFailed, Stopped
from naiad.environments.reach import Reach
from naiad.environments.specification import Specification
from naiad.errors import NaiadError

LONGEST_SECONDS = 3600.0
_MOST_WORDS = 16_000
_ALLOWED = frozenset({
    "PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "XDG_CACHE_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR", "NETRC",
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    "UV_CACHE_DIR", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_HTTP_TIMEOUT",
    "UV_HTTP_RETRIES", "UV_LINK_MODE", "UV_NATIVE_TLS", "UV_SYSTEM_CERTS",
})  # fmt: skip
# A build ends with the process that wanted it, however that ends: nobody else would wait for it.
_LEASH = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""
_SET = {
    "UV_PYTHON_DOWNLOADS": "never",
    "UV_NO_PROGRESS": "1",
    "UV_NO_CONFIG": "1",
    "NO_COLOR": "1",
    "PYTHONDONTWRITEBYTECODE": "",
}


class ToolMissing(NaiadError):
    """The tool that builds environments is not installed."""


class Running:
    """The tools that run now, so that they can be ended with the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self.stopped = False

    def add(self, process: subprocess.Popen[bytes]) -> None:
        """From now on `stop` ends it."""
        with self._lock:
            self._processes.add(process)
            if self.stopped:
                _kill(process)

    def remove(self, process: subprocess.Popen[bytes]) -> None:
        """It has ended."""
        with self._lock:
            self._processes.discard(process)

    def stop(self) -> None:
        """Ends whatever runs, and whatever would begin."""
        with self._lock:
            self.stopped = True
            for process in self._processes:
                _kill(process)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """How builds are run."""

    log: Path
    """Gets every word of the tools as they say it."""
    offline: bool = False
    """Whether no connection may be opened: what is not in the cache or a folder fails."""
    running: Running = field(default_factory=Running)
    environ: Mapping[str, str]
    """Of it the tools see a few listed variables."""
    reach: Reach | None = None
    """Which hosts packages may come from; None asks nobody."""


def find_uv() -> str:
    """The uv of the extra `environments`; raises `ToolMissing` with the line that installs it."""
    fix = "environments are built by uv: pip install 'naiad[environments]'"
    try:
        import uv
    except ImportError:
        raise ToolMissing(fix) from None
    try:
        return str(uv.find_uv_bin())
    except FileNotFoundError:
        raise ToolMissing(fix) from None


def tool_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of a build: no key, no database URL, nothing that a package's build could carry away."""
    allowed = {name: value for name, value in environ.items() if name in _ALLOWED or name.startswith("LC_")}
    return {**allowed, **_SET}


def places(specification: Specification, *, offline: bool) -> list[str]:
    """The arguments that say where packages come from, and what may be done to get them."""
    arguments = ["--no-config", "--no-python-downloads"]
    arguments += ["--default-index", specification.index_url] if specification.index_url else []
    for url in specification.extra_index_urls:
        arguments += ["--index", url]
    for place in specification.find_links:
        arguments += ["--find-links", place]
    arguments += [] if specification.allow_sdist else ["--only-binary", ":all:"]
    return arguments + (["--offline"] if offline else [])


def uv(step: str, arguments: Sequence[str], tools: Tools, *, text: str = "", cwd: Path | None = None) -> str:
    """Runs uv with `text` as its input; its standard output. Raises `BuildFailed` with its words.

    It names files as they are seen from `cwd`, so its words say little of where on this machine they lie.
    """
    if tools.running.stopped:  # nothing is begun any more, for it would hold what this process wants to give back
        raise Stopped(f"{step} was stopped")
    with tools.log.open("ab") as log:
        log.write(f"==> {step}\n".encode())
        log.flush()
        begin = log.tell()
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid()), find_uv(), *arguments],
                env=tool_environment(tools.environ),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
                cwd=cwd or tools.log.parent,
            )
        except OSError as error:
            raise BuildFailed(step, error.strerror or str(error)) from error
        tools.running.add(process)
        try:
            output, _ = process.communicate(text.encode(), timeout=LONGEST_SECONDS)
        except BaseException as error:
            _kill(process)
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise BuildFailed(step, f"it took longer than {LONGEST_SECONDS:.0f} s") from None
            raise
        finally:
            tools.running.remove(process)
    if tools.running.stopped:
        raise Stopped(f"{step} was stopped")
    if process.returncode:
        raise BuildFailed(step, words_since(tools.log, begin))
    return output.decode("utf-8", "replace")


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def words_since(log: Path, begin: int) -> str:
    """The last of what was written into the log after an offset."""
    with log.open("rb") as stream:
        end = stream.seek(0, os.SEEK_END)
        stream.seek(max(begin, end - _MOST_WORDS))
        return stream.read().decode("utf-8", "replace").strip()
