from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from naiad.config import pbtxt
from naiad.errors import ConfigError
from naiad.server import threads
from naiad.server.allowed import worker_environment

HALF = "50000 100000\n"


def message(text: str):
    return pbtxt.parse(text, "config.pbtxt").message


def parameter(name: str, value: str) -> str:
    return f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}\n'


@pytest.fixture
def sixteen(monkeypatch):
    monkeypatch.setattr(threads, "processors", lambda: 16)


@pytest.mark.parametrize(
    ("text", "default", "expected"),
    [
        ("", "1", 1),
        ("", "3", 3),
        ("", "auto", 16),
        ("instance_group { count: 3 }", "auto", 5),
        ("instance_group { count: 2 } instance_group { gpus: [ 0, 1 ] }", "auto", 4),
        ("instance_group { count: 64 }", "auto", 1),
        (parameter("naiad.threads", "auto"), "1", 16),
        (parameter("naiad.threads", "2") + parameter("INTRA_OP_THREAD_COUNT", "4"), "auto", 2),
        (parameter("INTRA_OP_THREAD_COUNT", "4"), "auto", 4),
        (parameter("intra_op_thread_count", "4"), "1", 4),
        (parameter("intra_op_thread_count", "0"), "1", 16),
        (parameter("NUM_THREADS", "6"), "1", 6),
        (parameter("TF_NUM_INTRA_THREADS", "7"), "1", 7),
    ],
)
def test_the_nearest_word_counts(sixteen, text, default, expected):
    assert threads.of_model(message(text), default) == expected


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "1025", "²", "999999999999999999999", ""])
def test_a_wrong_value_is_refused_by_name(value):
    with pytest.raises(ConfigError) as caught:
        threads.of_model(message(parameter("naiad.threads", value)), "1", source="config.pbtxt")
    assert str(caught.value) == f"config.pbtxt: parameters 'naiad.threads': expected auto or 1 to 1024, got '{value}'"


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": HALF}, 0.5),
        ("0::/a/b\n", {"cpu.max": "max 100000\n", "a/cpu.max": HALF, "a/b/cpu.max": "90000 100000"}, 0.5),
        ("0::/outside/of/the/container\n", {"cpu.max": HALF}, 0.5),
        ("0::/../up\n", {"cpu.max": HALF}, 0.5),
        ("0::/\n", {"cpu.max": "what is this"}, None),
        ("1:cpu,cpuacct:/x\n", {"cpu,cpuacct/x/cpu.cfs_quota_us": "25000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"},
         0.25),
        ("4:cpuacct,cpu:/x\n", {"cpu/cpu.cfs_quota_us": "25000", "cpu/cpu.cfs_period_us": "100000"}, 0.25),
        ("1:cpu:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("2:cpuset:/\n", {"cpuset/cpu.max": HALF}, None),
    ],
)  # fmt: skip
def test_quotas_of_both_kinds_of_control_groups_bound_the_processors(tmp_path, groups, files, expected):
    found = threads.processors(machine(tmp_path, groups, files))
    assert found == (len(os.sched_getaffinity(0)) if expected is None else expected)


def test_affinity_bounds_them_too(tmp_path):
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert threads.processors(tmp_path) == 1
    finally:
        os.sched_setaffinity(0, before)


def test_a_share_of_less_than_one_processor_is_one_thread(monkeypatch):
    monkeypatch.setattr(threads, "processors", lambda: 0.5)
    assert threads.share(1) == 1


def test_a_spawned_worker_finds_its_number_in_the_variables_of_libraries(stage):
    worker = stage.start(forks=False, threads=3)
    variables = Path(f"/proc/{worker.pid}/environ").read_bytes().split(b"\0")
    assert {b"OMP_NUM_THREADS=3", b"MKL_NUM_THREADS=3"} <= set(variables)


def test_workers_of_other_numbers_are_forked_from_one_zygote(stage):
    stage.start(threads=1)
    stage.start("other", threads=3)
    assert len(stage.zygotes()) == 1


TOLD = """
import sys
from naiad_worker.backends import LoadSpec, pytorch
spec = LoadSpec("m", 1, 0, sys.argv[1], "model.pt", {}, {"kind": "cpu"}, int(sys.argv[2]))
pytorch.preimport()
pytorch.Backend(spec)
import torch
print(torch.get_num_threads())
"""


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
@pytest.mark.parametrize("count", [1, 2, 3])
def test_torch_is_told(torch, repository, count):
    repository.torchscript("m", torch.nn.Identity(), torch.zeros(1))
    line = [sys.executable, "-c", TOLD, str(repository.root / "m/1"), str(count)]
    ended = subprocess.run(
        line, env=worker_environment({}, {}), capture_output=True, text=True, timeout=100, check=True
    )
    assert ended.stdout == f"{count}\n"
