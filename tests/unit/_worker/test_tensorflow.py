"""What a configuration and `--backend-config` ask of TensorFlow, as its session is told: in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from naiad.server.allowed import worker_environment
from tests.support.tensorflow_models import DISABLED, Models

TOLD = """
import json, sys
from google.protobuf import json_format
from naiad_worker.backends import LoadFailure, LoadSpec, tensorflow
folder, cases = sys.argv[1], json.loads(sys.argv[2])
tensorflow.preimport()
told = []
for file, config, settings, device in cases:
    spec = LoadSpec("m", 1, 0, folder, file, config, device, 2, settings)
    try:
        if device["kind"] == "cuda":
            model = tensorflow.SavedModel.__new__(tensorflow.SavedModel)
            model._inter = 1
            made = model._config(spec)
        else:
            session = getattr(tensorflow.Backend(spec)._model, "_session", None)
            made = session._config if session is not None else None
        told.append(json_format.MessageToDict(made, preserving_proto_field_name=True) if made is not None else {})
    except LoadFailure as failure:
        told.append(str(failure))
print(json.dumps(told))
"""
CPU, GPU = {"kind": "cpu"}, {"kind": "cuda", "id": 1}


def parameters(**texts: str) -> dict[str, Any]:
    return {"parameters": {name: {"string_value": text} for name, text in texts.items()}}


def accelerated(*names: str, level: int = 0) -> dict[str, Any]:
    entries = {"gpu_execution_accelerator": [{"name": name, "parameters": {}} for name in names]}
    return {"optimization": {"execution_accelerators": entries, "graph": {"level": level}}}


def told(
    models: Models, *cases: tuple[str, dict[str, Any], dict[str, str], dict[str, Any]]
) -> tuple[list[Any], list[str]]:
    """What each session was told (its ConfigProto, or the refusal), and the warnings."""
    line = [sys.executable, "-c", TOLD, str(models.folder), json.dumps(cases)]
    environment = {**worker_environment({}, {}), **DISABLED}
    ended = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, ended.stderr[-3000:]
    warnings = [text for text in ended.stderr.splitlines() if text.startswith("WARNING: ") and "backend" in text]
    return json.loads(ended.stdout.splitlines()[-1]), warnings


def test_sessions_are_told_what_is_asked(tensorflow_models):
    written = parameters(TF_NUM_INTER_THREADS="3", TF_USE_PER_SESSION_THREADS="On", MAX_SESSION_SHARE_COUNT="2")
    wrong = parameters(TF_NUM_INTER_THREADS="many")
    unused = {**parameters(TF_THREADS="1", NUM_THREADS="1"), **accelerated("tensorrt", "auto_mixed_precision")}
    archive = {**parameters(TF_SIGNATURE_DEF="x"), **accelerated(level=1)}
    (plain, asked, jit, off, strict, taken, free, mixed, refused, _), warnings = told(
        tensorflow_models,
        ("add-sub", {}, {}, CPU),
        ("add-sub", written, {}, CPU),
        ("add-sub", accelerated(level=2), {}, CPU),
        ("add-sub", accelerated(level=-1), {}, CPU),
        ("add-sub", {}, {"allow-soft-placement": "0"}, CPU),
        ("add-sub", {}, {"gpu-memory-fraction": "0.25"}, GPU),
        ("add-sub", {}, {}, GPU),
        ("add-sub", unused, {}, CPU),
        ("add-sub", wrong, {}, CPU),
        ("sequential.keras", archive, {}, CPU),
    )
    assert (plain["intra_op_parallelism_threads"], plain["inter_op_parallelism_threads"]) == (2, 1)
    assert plain["allow_soft_placement"] is True
    assert (asked["inter_op_parallelism_threads"], asked["use_per_session_threads"]) == (3, True)
    levels = [one["graph_options"]["optimizer_options"].get("global_jit_level") for one in (plain, jit, off)]
    assert levels == [None, "ON_2", "OFF"]
    assert "allow_soft_placement" not in strict
    assert taken["gpu_options"] == {"per_process_gpu_memory_fraction": 0.25, "visible_device_list": "1"}
    assert free["gpu_options"] == {"allow_growth": True, "visible_device_list": "1"}
    assert mixed["graph_options"]["rewrite_options"] == {"auto_mixed_precision": "ON"}
    assert refused == "parameters 'TF_NUM_INTER_THREADS': expected a number of threads, got 'many'"
    assert warnings == [
        "WARNING: parameter TF_THREADS: the tensorflow backend does not use it",
        "WARNING: execution accelerator 'tensorrt': the tensorflow backend does not use it",
        "WARNING: parameter TF_SIGNATURE_DEF: the tensorflow backend does not use it",
        "WARNING: optimization.graph.level: the tensorflow backend does not use it",
    ]


@pytest.mark.parametrize("name", ["../init.json", "/init.json", "absent.json"])
def test_a_file_of_operators_lies_beside_the_model(tensorflow_models, name):
    ((refused,), _) = told(tensorflow_models, ("add-sub", parameters(TF_INIT_OPS_FILE=name), {}, CPU))
    assert refused.startswith("parameters 'TF_INIT_OPS_FILE': ")
    assert refused.endswith(f"expected a file's name, got '{name}'" if "/" in name else f"'{name}' does not exist")
