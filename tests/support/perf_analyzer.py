"""Brings NVIDIA's load tool perf_analyzer into the cache folder and runs it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".cache" / "perf_analyzer"
UV = ROOT / ".tools" / "uv" / "bin" / "uv"
# The last wheel that carries the program, and the library that it is linked against; no GPU is used.
WHEELS = ["tritonclient==2.38.0", "nvidia-cuda-runtime-cu12==12.6.77"]
PROGRAM = FOLDER / "bin" / "perf_analyzer"


def perf_analyzer() -> Path:
    """The program; the test skips with the reason where it cannot be had."""
    if not PROGRAM.exists():
        install = [UV, "pip", "install", "--quiet", "--no-deps", "--target", FOLDER, *WHEELS]
        done = subprocess.run(install, capture_output=True, text=True, check=False, timeout=300)
        if done.returncode:
            pytest.skip(f"perf_analyzer could not be fetched: {done.stderr.strip()[-300:]}")
        PROGRAM.chmod(0o755)
    probe = subprocess.run([PROGRAM, "--help"], env=_environment(), capture_output=True, text=True, check=False)
    if "error while loading shared libraries" in probe.stderr:
        pytest.skip(f"{probe.stderr.strip()}; install it with: apt-get install libb64-0d")
    return PROGRAM


def _environment() -> dict[str, str]:
    return {**os.environ, "LD_LIBRARY_PATH": str(FOLDER / "nvidia" / "cuda_runtime" / "lib")}


def measure(model: str, address: str, report: Path, *options: str) -> str:
    """Runs short windows without waiting for steady figures; returns what the program printed."""
    windows = ("-p", "200", "-s", "99999", "-r", "3")
    command = [perf_analyzer(), "-m", model, "-u", address, "-f", report, *windows, *options]
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout
