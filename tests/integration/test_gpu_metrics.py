"""GPU metrics of a real server: from a stand-in for the driver's library, and from a GPU where there is one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.server import Serve

TESTS = Path(__file__).resolve().parents[1]
SOURCE = TESTS / "support" / "nvml.c"
REFERENCE = TESTS.parent / "docs" / "metrics.md"


def gpus(server: Serve) -> dict[str, dict[str, float]]:
    """The values of each family by GPU."""
    found: dict[str, dict[str, float]] = {}
    text = server.scrape()
    for name, gpu, value in re.findall(r'^(nv_\w+)\{gpu_uuid="([^"]+)"\} (\S+)$', text, re.MULTILINE):
        assert f"# TYPE {name} " in text
        found.setdefault(name, {})[gpu] = float(value)
    return found


@pytest.fixture
def driver(tmp_path: Path) -> dict[str, str]:
    """An environment in which the stand-in is found."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler: sudo apt-get install gcc libc6-dev")
    folder = tmp_path / "driver"
    folder.mkdir()
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "libnvidia-ml.so.1", SOURCE], check=True)
    return {"LD_LIBRARY_PATH": f"{folder}:{os.environ.get('LD_LIBRARY_PATH', '')}"}


def test_gpus_are_shown_as_triton_shows_them(repository, start, driver):
    repository.identity("m")
    server = start("--metrics-interval-ms=50", environment=driver).wait_ready()
    seen = server.until(lambda: gpus(server), 10, "no GPU in the metrics")
    energy = seen.pop("nv_energy_consumption")
    assert seen == {
        "nv_gpu_utilization": {"GPU-0": 0.75},
        "nv_gpu_memory_total_bytes": {"GPU-0": float(8 << 30), "GPU-1": float(8 << 30)},
        "nv_gpu_memory_used_bytes": {"GPU-0": float(3 << 30), "GPU-1": float(3 << 30)},
        "nv_gpu_power_usage": {"GPU-0": 123.5},
        "nv_gpu_power_limit": {"GPU-0": 300.0},
    }
    assert set(energy) == {"GPU-0"}
    for name in ("nv_energy_consumption", *seen):
        assert f"| `{name}` |" in REFERENCE.read_text()
    server.until(lambda: gpus(server)["nv_energy_consumption"]["GPU-0"] > energy["GPU-0"], 10, "energy stands still")


def test_gpus_are_left_out_where_they_are_not_wanted(repository, start, driver):
    repository.identity("m")
    server = start("--allow-gpu-metrics=false", "--metrics-interval-ms=50", environment=driver).wait_ready()
    assert "nv_cpu_utilization" in server.scrape()
    assert not gpus(server)


def test_a_real_gpu(repository, start):
    if shutil.which("nvidia-smi") is None:
        pytest.skip("no NVIDIA GPU here")
    asked = ["nvidia-smi", "--query-gpu=uuid,memory.total", "--format=csv,noheader,nounits"]
    rows = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip().splitlines()
    repository.identity("m")
    server = start("--metrics-interval-ms=100").wait_ready()
    seen = server.until(lambda: gpus(server), 20, "no GPU in the metrics")
    totals = seen["nv_gpu_memory_total_bytes"]
    assert set(totals) == {row.split(",")[0] for row in rows}
    for row in rows:
        uuid, mebibytes = row.split(", ")
        assert totals[uuid] == pytest.approx(float(mebibytes) * (1 << 20), rel=0.05)
