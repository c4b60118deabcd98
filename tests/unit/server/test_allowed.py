"""What a worker's process is started with: by which command, with which variables."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from naiad.server.allowed import START, worker_environment


@pytest.mark.parametrize("what", ["main", "zygote"])
def test_a_file_of_the_current_folder_is_not_imported_instead_of_a_module(what: str, tmp_path: Path):
    for name in ("argparse", "json", "numpy", "queue", "naiad_worker"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this is not the module that is meant')\n")
    done = subprocess.run(
        [sys.executable, START, what, "--help"],
        env=worker_environment({"PATH": "/usr/bin:/bin"}, {}),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: ")


def test_e6_no_secret_is_inherited_whatever_its_name_begins_with():
    kept = {"CUDA_VISIBLE_DEVICES": "0", "NVIDIA_VISIBLE_DEVICES": "all", "TORCH_LOGS": "x", "LC_ALL": "C"}
    secrets = {"NVIDIA_API_KEY": "x", "TORCH_HUB_TOKEN": "x", "CUDA_SECRET": "x", "NAIAD_KEY": "x", "AWS_PROFILE": "x"}
    seen = worker_environment({**kept, **secrets}, {})
    assert kept.items() <= seen.items()
    assert not secrets.keys() & seen.keys()
