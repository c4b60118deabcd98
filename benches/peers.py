"""Brings the real Triton server and the load generators into a cache folder, from PyPI and Debian."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
CACHE = CHECKOUT / ".cache" / "benches"
PIP_PYTHON = CHECKOUT / ".tools" / "uv" / "bin" / "python"  # .venv has no pip, and uv cannot download
TRITON = "nvidia-pytriton==0.7.0"  # carries Triton 2.51
TRITONCLIENT = "tritonclient==2.38.0"  # the last wheel that carries perf_analyzer


class Missing(Exception):
    """Something that the benches need is not there; the message holds the line that installs it."""


@dataclass(frozen=True, slots=True)
class Peers:
    """Where the programs are."""

    triton: Path
    """Folder that holds `pytriton/` and `nvidia_pytriton.libs/`."""
    perf_analyzer: Path
    cudart: Path
    """Folder with `libcudart.so.12`, which perf_analyzer is linked against (no GPU is used)."""
    python: Path
    """Interpreter with numpy < 2 and torch, for Triton's Python backend."""


def _say(text: str) -> None:
    print(f"benches: {text}", file=sys.stderr, flush=True)


def _unpack(requirement: str, folder: Path) -> None:
    if (folder / ".complete").exists():
        return
    _say(f"downloading {requirement}")
    wheels = folder.with_suffix(".wheels")
    download = [str(PIP_PYTHON), "-m", "pip", "download", "-q", "--no-deps", "-d", str(wheels)]
    subprocess.run([*download, requirement], check=True)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    shutil.rmtree(wheels)
    for program in [*folder.rglob("bin/*"), *folder.rglob("triton_python_backend_stub")]:
        if program.is_file():
            program.chmod(0o755)
    (folder / ".complete").touch()


def _environment(folder: Path) -> Path:
    python = folder / "bin" / "python"
    if (folder / ".complete").exists():
        return python
    uv = shutil.which("uv") or str(CHECKOUT / ".tools" / "uv" / "bin" / "uv")
    if not Path(uv).exists():
        raise Missing("uv is missing; install it with: pip install uv")
    _say("making an environment for Triton's Python backend (numpy < 2, torch: 3 GB unless cached)")
    subprocess.run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(folder)], check=True)
    subprocess.run([uv, "pip", "install", "-q", "--python", str(python), "numpy<2", "torch"], check=True)
    (folder / ".complete").touch()
    return python


def fetch() -> Peers:
    """Downloads what is not cached yet; raises `Missing` with the line that installs what it cannot download."""
    for program, package in (("wrk", "wrk"),):
        if shutil.which(program) is None:
            raise Missing(f"{program} is missing; install it with: apt-get install -y {package} libb64-0d")
    CACHE.mkdir(parents=True, exist_ok=True)
    triton, client, cudart = CACHE / "triton", CACHE / "tritonclient", CACHE / "cudart"
    _unpack(TRITON, triton)
    _unpack(TRITONCLIENT, client)
    backend = triton / "pytriton" / "tritonserver" / "backends" / "python"
    stubs = triton / "pytriton" / "tritonserver" / "python_backend_stubs"
    stub = stubs / f"{sys.version_info[0]}.{sys.version_info[1]}" / "triton_python_backend_stub"
    if not stub.exists():
        have = ", ".join(sorted(p.name for p in stubs.iterdir()))
        raise Missing(f"Triton's wheel has no stub for this Python; run the benches with one of: {have}")
    if not (backend / stub.name).exists():
        shutil.copy2(stub, backend / stub.name)
    cudart.mkdir(exist_ok=True)
    shutil.copy2(next((triton / "nvidia_pytriton.libs").glob("libcudart-*")), cudart / "libcudart.so.12")
    peers = Peers(
        triton=triton,
        perf_analyzer=client / "tritonclient-2.38.0.data" / "data" / "bin" / "perf_analyzer",
        cudart=cudart,
        python=_environment(CACHE / "triton-env"),
    )
    probe = subprocess.run(
        [str(peers.perf_analyzer), "--help"], env=perf_environment(peers), capture_output=True, text=True, check=False
    )
    if "error while loading shared libraries" in probe.stderr:
        raise Missing(f"{probe.stderr.strip()}; install it with: apt-get install -y libb64-0d")
    return peers


def perf_environment(peers: Peers) -> dict[str, str]:
    """Variables under which perf_analyzer starts."""
    return {"PATH": os.environ["PATH"], "LD_LIBRARY_PATH": str(peers.cudart)}


def triton_environment(peers: Peers) -> dict[str, str]:
    """Variables under which tritonserver starts: its libraries, the stub's interpreter, one thread a worker."""
    libpython = sysconfig.get_config_var("LIBDIR")
    site = next((peers.python.parent.parent / "lib").glob("python*/site-packages"))
    return {
        "PATH": f"{peers.python.parent}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": f"{peers.triton / 'nvidia_pytriton.libs'}:{libpython}",
        "PYTHONPATH": str(site),
        "OMP_NUM_THREADS": "1",
        "GOMP_SPINCOUNT": "0",
    }
