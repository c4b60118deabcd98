"""A second, older Python: Debian's python3.9, unpacked beside the system, with a numpy of its time."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.support import once

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "python3.9"
SUITE = "bullseye"
PACKAGES = (
    "python3.9",
    "python3.9-minimal",
    "libpython3.9-minimal",
    "libpython3.9-stdlib",
    "python3-distutils",
    "libffi7",
)
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class NotHere(Exception):
    """Why there is none."""


def folder() -> Path:
    """An environment's folder (`bin/python3`, numpy < 2) made once; raises `NotHere` with what is missing."""
    with once.alone(CACHE):
        return _made()


def _made() -> Path:
    ready = CACHE / "usr"
    if (ready / ".complete").is_file():
        return ready
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise NotHere("apt-get and dpkg, which bring Debian's python3.9, are not here")
    shutil.rmtree(CACHE, ignore_errors=True)
    for package in _download(CACHE / "apt"):
        _run("dpkg", "-x", str(package), str(CACHE))
    (ready / "bin" / "python3").symlink_to("python3.9")
    (ready / "lib" / "python3.9" / "sitecustomize.py").unlink(missing_ok=True)  # a link to Debian's own
    for library in ready.glob("lib/*/libffi.so.*"):  # where an activated environment has its libraries
        library.rename(ready / "lib" / library.name)
    try:
        import uv
    except ImportError:
        raise NotHere("uv is not installed: pip install 'naiad[environments]'") from None
    packages = ready / "lib" / "python3" / "dist-packages"
    install = ["pip", "install", "--no-config", "--only-binary", ":all:", "--target", str(packages), "numpy<2"]
    _run(uv.find_uv_bin(), *install, "--python", str(ready / "bin" / "python3"))
    (ready / ".complete").touch()
    return ready


def _download(place: Path) -> list[Path]:
    """The packages, by an apt of its own that leaves the system's alone."""
    for inner in ("state/lists/partial", "cache/archives/partial", "packages"):
        (place / inner).mkdir(parents=True)
    status, sources = place / "state" / "status", place / "sources.list"
    status.touch()
    sources.write_text(f"deb [signed-by={KEYRING}] {_mirror()} {SUITE} main\n")
    options = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "/nonexistent",
        "Dir::State": place / "state",
        "Dir::State::status": status,
        "Dir::Cache": place / "cache",
        "APT::Sandbox::User": "root",
        "Acquire::http::Timeout": 10,
        "Acquire::Retries": 0,
    }
    apt = ["apt-get", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    _run(*apt, "update")
    _run(*apt, "download", *PACKAGES, cwd=place / "packages")
    return sorted((place / "packages").glob("*.deb"))


def _mirror() -> str:
    """The Debian mirror that this machine is configured with."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n".join(path.read_text("utf-8") for path in files if path.is_file())
    for url in re.findall(r"https?://[^\s]+", text):
        if url.rstrip("/").endswith("/debian"):
            return str(url)
    raise NotHere("apt is not configured with a mirror of Debian")


def _run(*command: str, cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=50)
    except subprocess.TimeoutExpired as error:
        raise NotHere(f"Debian's python3.9 cannot be had in time: {' '.join(command[:2])}") from error
    if done.returncode:
        raise NotHere(f"Debian's python3.9 cannot be had: {' '.join(command[:2])}: {done.stderr.strip()[-300:]}")
