"""Fields and options of the configuration that change how a model is loaded and asked."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MNIST = Path(__file__).resolve().parents[2] / "examples" / "mnist" / "model-repo" / "mnist-cnn" / "1" / "model.pt"
ROW = [0.5] * 16
FILES = {"pth": "digits.pth", "none": "weights", "several": "b.pt", "asked": "digits.pth"}
EXPLICIT = "--model-control-mode=explicit"
IO = """backend: "identity" max_batch_size: 4
input { name: "INPUT0" data_type: TYPE_FP32 dims: [ 4 ] reshape { shape: [ 2, 2 ] } }
input { name: "INPUT1" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } optional: true }
output { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 4 ] reshape { shape: [ 2, 2 ] } }
output { name: "OUTPUT1" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }
"""


def tensor(name: str, *shape: int) -> dict:
    count = 1
    for dim in shape:
        count *= dim
    return {"name": name, "shape": list(shape), "datatype": "FP32", "data": [1.0] * count}


def test_optional_inputs_and_reshape(repository, start):
    (repository.root / "m" / "1").mkdir(parents=True)
    (repository.root / "m" / "config.pbtxt").write_text(IO)
    server = start().wait_ready()
    both = server.post("/v2/models/m/infer", {"inputs": [tensor("INPUT0", 2, 4), tensor("INPUT1", 2, 1)]})
    assert [(o["name"], o["shape"]) for o in both.json["outputs"]] == [("OUTPUT0", [2, 4]), ("OUTPUT1", [2, 1])]
    one = server.post("/v2/models/m/infer", {"inputs": [tensor("INPUT0", 2, 4)]})
    assert [output["name"] for output in one.json["outputs"]] == ["OUTPUT0"]
    without = server.post("/v2/models/m/infer", {"inputs": [tensor("INPUT1", 2, 1)]})
    assert without.status == 400
    assert "expected number of inputs between 1 and 2 but got 1" in without.error


def test_a_model_file_of_another_name(repository, start, torch):
    repository.file("m", MNIST.read_bytes(), file="digits.pt")
    (repository.root / "m" / "config.pbtxt").write_text('backend: "pytorch" default_model_filename: "digits.pt"')
    server = start().wait_ready()
    assert server.get("/v2/models/m/config").json["default_model_filename"] == "digits.pt"


def test_the_only_file_of_a_version_may_have_any_name(repository, start, torch):
    """What it holds decides, not its name; where others lie beside it the configuration says which."""
    for name, file in (("pth", "digits.pth"), ("none", "weights"), ("several", "b.pt")):
        repository.file(name, MNIST.read_bytes(), file=file)
    repository.file("several", b"x", file="a.txt")
    (repository.root / "several" / "config.pbtxt").write_text('default_model_filename: "b.pt"')
    repository.file("asked", MNIST.read_bytes(), file="digits.pth")
    (repository.root / "asked" / "config.pbtxt").write_text('platform: "pytorch_libtorch"')
    server = start().wait_ready()
    files = {name: server.get(f"/v2/models/{name}/config").json["default_model_filename"] for name in FILES}
    assert files == FILES


def test_where_nothing_says_the_batch_size_is_the_options(repository, start, torch):
    repository.file("m", MNIST.read_bytes())
    options = ("--backend-config=pytorch,default-max-batch-size=5", "--backend-config=python,shm-growth-byte-size=9")
    server = start(*options).wait_ready()
    assert server.get("/v2/models/m/config").json["max_batch_size"] == 5
    (record,) = [r for r in server.records() if "--backend-config" in r["message"]]
    assert record["message"].startswith("option --backend-config=python,shm-growth-byte-size=9 has no effect: tensors")


def test_a_configuration_of_another_name_comes_first(repository, start):
    repository.identity("m", max_batch=4)
    repository.identity("n", max_batch=4)
    text = (repository.root / "m" / "config.pbtxt").read_text()
    (repository.root / "m" / "configs").mkdir()
    (repository.root / "m" / "configs" / "small.pbtxt").write_text(
        text.replace("max_batch_size: 4", "max_batch_size: 1")
    )
    server = start("--model-config-name=small").wait_ready()
    sizes = [server.get(f"/v2/models/{name}/config").json["max_batch_size"] for name in ("m", "n")]
    assert sizes == [1, 4]


def test_a_strict_configuration_must_be_whole(repository, start, torch):
    repository.file("m", MNIST.read_bytes())
    server = start(EXPLICIT, "--strict-model-config=true").wait_ready()
    answer = server.post("/v2/repository/models/m/load")
    assert answer.status == 400
    assert "write name, data_type and dims into config.pbtxt" in answer.error


def test_a_group_on_a_gpu_without_one_says_so(repository, start, torch):
    repository.file("m", MNIST.read_bytes())
    (repository.root / "m" / "config.pbtxt").write_text("instance_group { kind: KIND_GPU }")
    server = start(EXPLICIT).wait_ready()
    answer = server.post("/v2/repository/models/m/load")
    if list(Path("/dev").glob("nvidia[0-9]*")):
        assert answer.status == 200
        return
    assert answer.status == 400
    assert "instance group m_0 of model m has kind KIND_GPU but no GPUs are available" in answer.error


def test_the_configuration_is_in_the_verbose_log(repository, start):
    repository.identity("m")
    server = start("--log-verbose=1").wait_ready()
    (record,) = [r for r in server.records() if r["message"].startswith("Model config: ")]
    assert (record["level"], record["model"], '"max_batch_size": 8' in record["message"]) == ("verbose", "m", True)


def test_the_delay_for_tests_makes_batches_exact(repository, start):
    """Triton's variable: the first batch waits for so many requests, then the batcher runs freely."""
    repository.identity("m", max_batch=8, extra="dynamic_batching { }")
    server = start(environment={"TRITONSERVER_DELAY_SCHEDULER": "5"}).wait_ready()
    with ThreadPoolExecutor(5) as pool:
        assert [answer.status for answer in pool.map(lambda _: server.infer("m", ROW), range(5))] == [200] * 5
    (stats,) = server.get("/v2/models/m/stats").json["model_stats"]
    assert (stats["inference_count"], stats["execution_count"]) == (5, 1)
    assert server.infer("m", ROW).status == 200
    (record,) = [r for r in server.records() if r["message"] == "hooks for tests are on"]
    assert (record["level"], record["delay_scheduler"]) == ("warning", 5)
