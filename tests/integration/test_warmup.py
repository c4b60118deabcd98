"""Warm-up samples run in each instance before it is READY; one that fails is named."""

from __future__ import annotations

import os
import signal
import struct

import pytest

from tests.support.server import descendants

ROW = [0.5] * 16
EXPLICIT = "--model-control-mode=explicit"
SAMPLE = """model_warmup { name: "%s" batch_size: %d count: %d
  inputs { key: "INPUT0" value { data_type: TYPE_FP32 dims: [ 16 ] %s } } }"""
GROUP = "instance_group { count: 2 }"


def running(server) -> list[str]:
    return [r["message"] for r in server.records() if "is running warmup sample" in r["message"]]


def test_every_instance_runs_every_sample(repository, start):
    samples = SAMPLE % ("zeros", 1, 1, "zero_data: true") + SAMPLE % ("dice", 4, 3, "random_data: true")
    repository.identity("m", extra=samples + SAMPLE % ("file", 8, 1, 'input_data_file: "row"') + GROUP)
    (repository.root / "m" / "warmup").mkdir()
    (repository.root / "m" / "warmup" / "row").write_bytes(struct.pack("<16f", *ROW))
    server = start(EXPLICIT, "--load-model=m").wait_ready()
    said = [
        f"model 'm' instance m_{instance} is running warmup sample '{sample}'"
        for instance in range(2)
        for sample in ("zeros", "dice", "file")
    ]
    assert running(server) == said
    assert server.infer("m", ROW).status == 200
    assert server.get("/v2/models/m/stats").json["model_stats"][0]["inference_count"] == 1, "a warm-up is no request"
    worker = max(pid for pid in descendants(server.pid))
    os.kill(worker, signal.SIGKILL)
    server.until(lambda: len(running(server)) == 9, 30, "the replacement was not warmed up")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ('input_data_file: "short"', "warmup: warmup sample 'bad': ValueError: input 'INPUT0': expected 16 elements"),
        ('input_data_file: "none"', "model_warmup 'bad': input 'INPUT0': input_data_file: 'warmup/none' does not"),
        ('input_data_file: "../config.pbtxt"', "path '../config.pbtxt': expected a path inside"),  # C2
        ('input_data_file: "/etc/passwd"', "path '/etc/passwd': expected a path inside"),  # C2
    ],
)
def test_a_sample_that_fails_is_named_and_the_old_version_serves(repository, start, given, reason):
    repository.identity("m")
    server = start(EXPLICIT, "--load-model=m").wait_ready()
    repository.identity("m", extra=SAMPLE % ("bad", 1, 1, given))
    (repository.root / "m" / "warmup").mkdir()
    (repository.root / "m" / "warmup" / "short").write_bytes(bytes(60))
    answer = server.post("/v2/repository/models/m/load")
    assert answer.status == 400
    assert reason in answer.error
    assert server.infer("m", ROW).status == 200
    (record,) = [r for r in server.records() if r["message"] == "failed to load 'm'"]
    assert (record["model"], record["version"], record["stage"]) == ("m", 1, reason.split(":")[0] if "warmup:" in reason
        else "configuration")  # fmt: skip


def test_a_sample_of_another_shape_fails_in_the_model(repository, start, torch):
    import io
    import warnings

    class Fixed(torch.nn.Module):
        def forward(self, x):
            return x @ torch.ones(3, 1)

    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(Fixed()), buffer)
    repository.file("m", buffer.getvalue())
    tensor = "data_type: TYPE_FP32 dims: [ %d ]"
    good = f'inputs {{ key: "x" value {{ {tensor % 3} random_data: true }} }}'
    text = f"""max_batch_size: 4 input {{ name: "x" {tensor % -1} }} output {{ name: "OUTPUT__0" {tensor % 1} }}
        model_warmup {{ name: "good" batch_size: 4 {good} }}
        model_warmup {{ name: "wide" batch_size: 4 {good.replace("[ 3 ]", "[ 5 ]")} }}"""
    (repository.root / "m" / "config.pbtxt").write_text(text)
    server = start(EXPLICIT, "--disable-auto-complete-config=true").wait_ready()
    answer = server.post("/v2/repository/models/m/load")
    assert answer.status == 400
    assert "warmup: warmup sample 'wide': " in answer.error
    assert [line.rpartition(" ")[2] for line in running(server)] == ["'good'", "'wide'"]
