"""Models under other interpreters: named environments, archives and folders, as Triton's repositories name them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from naiad.environments.errors import EnvironmentBusy
from tests.integration.test_worker_loss import worker_of
from tests.support.environments import wish
from tests.support.server import Serve, descendants

MODEL = Path(__file__).parents[2] / "examples" / "mnist" / "model-repo" / "mnist-cnn" / "1" / "model.pt"
PYTHON = """backend: "python" max_batch_size: 8
input { name: "IN" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "OUT" data_type: TYPE_FP32 dims: [ 1 ] }
"""
ROW = [float(number) for number in range(16)]


def parameter(name: str, value: str) -> str:
    return f'parameters {{ key: "{name}" value {{ string_value: "{value}" }} }}'


def brought(value: str) -> str:
    return parameter("EXECUTION_ENV_PATH", value)


def answers(server: Serve, model: str) -> None:
    answer = server.infer(model, ROW)
    assert answer.status == 200, answer.body
    assert answer.json["outputs"][0]["data"] == ROW


def variables(pid: int) -> dict[str, str]:
    rows = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return dict(row.decode().split("=", 1) for row in rows if b"=" in row)


def executable(pid: int) -> str:
    """The interpreter as it was called: what /proc/PID/exe shows is where its links end."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()


@pytest.fixture
def store(environments, real_wheelhouse):
    environments.create("small", wish(real_wheelhouse, "tiny<2\n"))
    environments.build("small", offline=True)
    return environments


@pytest.fixture
def root(tmp_path: Path) -> str:
    return f"--environments={tmp_path / 'environments'}"


def test_a_named_environment_runs_the_worker(store, root, repository, start):
    repository.identity("named", extra=parameter("naiad.environment", "small"))
    repository.identity("plain")
    server = start(root).wait_ready()
    answers(server, "named")
    answers(server, "plain")
    folder, lease = store.lease("small")
    lease.release()
    worker = worker_of(server, "named")
    assert executable(worker) == f"{folder}/bin/python"
    seen = variables(worker)
    assert seen["VIRTUAL_ENV"] == str(folder)
    assert seen["PATH"].startswith(f"{folder}/bin:")
    assert not any(name.startswith("NAIAD_") for name in seen)
    assert not list(folder.glob("lib/*/site-packages/naiad*"))
    held = {os.readlink(path) for path in Path(f"/proc/{worker}/fd").iterdir()}
    assert not any("environments" in target for target in held)  # E6: the server's lease stays with the server
    assert executable(worker_of(server, "plain")) != executable(worker)


def test_a_replacement_keeps_the_interpreter(store, root, repository, start):
    repository.identity("named", extra=parameter("naiad.environment", "small"))
    server = start(root).wait_ready()
    first = worker_of(server, "named")
    os.kill(first, signal.SIGKILL)
    server.until(lambda: server.index()["named"]["state"] == "READY", 30, "not back")
    server.until(lambda: server.infer("named", ROW).status == 200, 30, "does not answer")
    folder, lease = store.lease("small")
    lease.release()
    running = {executable(pid) for pid in descendants(server.pid) if pid != first}
    assert running == {f"{folder}/bin/python"}


def test_what_a_server_uses_is_not_removed(store, root, repository, start):
    repository.identity("named", extra=parameter("naiad.environment", "small"))
    server = start(root, "--model-control-mode=explicit", "--load-model=named").wait_ready()
    with pytest.raises(EnvironmentBusy, match="in use by a running server"):
        store.remove("small")
    answers(server, "named")
    assert server.post("/v2/repository/models/named/unload").status == 200

    def removed() -> bool:
        try:
            store.remove("small")
        except EnvironmentBusy:
            return False
        return True

    server.until(removed, 30, "the environment stays in use")
    assert store.all() == []
    answer = server.post("/v2/repository/models/named/load")
    assert answer.status == 400
    assert "there is no environment 'small'; there is none" in answer.error


def test_a_name_that_cannot_be_used_is_said(store, root, repository, start, wheelhouse):
    store.create("pending", wish(wheelhouse))
    repository.identity("lost", extra=parameter("naiad.environment", "smal"))
    repository.identity("pending", extra=parameter("naiad.environment", "pending"))
    repository.identity("climbs", extra=parameter("naiad.environment", "../small"))
    repository.identity("both", extra=parameter("naiad.environment", "small") + brought("/x"))
    server = start(root).wait_settled("lost", "pending", "climbs", "both")
    index = server.index()
    assert "there is no environment 'smal'; there is 'pending', 'small'" in index["lost"]["reason"]
    assert "expected READY, got PENDING" in index["pending"]["reason"]
    assert "expected the name of an environment, got '../small'" in index["climbs"]["reason"]
    assert "got both" in index["both"]["reason"]


def test_a_missing_framework_is_named(store, root, repository, start):
    repository.file("net", MODEL.read_bytes())
    (repository.root / "net" / "config.pbtxt").write_text(parameter("naiad.environment", "small"))
    server = start(root).wait_settled("net")
    reason = server.index()["net"]["reason"]
    assert "environment 'small' has no 'torch'" in reason
    assert "ENV_MISSING_BACKEND" in reason
    record = next(r for r in server.records() if r.get("stage") == "environment")
    assert "add the line 'torch'" in record["fix"]


def packed(folder: Path, archive: Path) -> None:
    """What conda-pack makes: links inside, the environment at the root."""
    with tarfile.open(archive, "w:gz", compresslevel=1) as opened:
        opened.add(folder, ".")


def test_an_archive_is_extracted_once(python39, root, repository, start, tmp_path):
    repository.identity("packed", extra=brought("$$TRITON_MODEL_DIRECTORY/env.tar.gz"))
    repository.identity("again", extra=brought(str(repository.root / "packed" / "env.tar.gz")))
    packed(python39, repository.root / "packed" / "env.tar.gz")
    server = start(root).wait_ready()
    for model in ("packed", "again"):
        answers(server, model)
    archives = tmp_path / "environments" / "archives"
    folders = [path for path in archives.iterdir() if path.is_dir()]
    assert len(folders) == 1
    worker = worker_of(server, "packed")
    assert executable(worker) == f"{folders[0]}/bin/python3"
    assert variables(worker)["LD_LIBRARY_PATH"].startswith(f"{folders[0]}/lib")
    assert "VIRTUAL_ENV" not in variables(worker)
    stamp = folders[0].stat().st_mtime_ns
    server.stop()
    answers(start(root).wait_ready(), "packed")
    assert [path.stat().st_mtime_ns for path in archives.iterdir() if path.is_dir()] == [stamp]


def test_an_extracted_archive_in_use_is_not_removed(root, repository, start, tmp_path):
    def naiad(*words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "naiad", "env", *words, root]
        return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)

    repository.identity("m", extra=brought("$$TRITON_MODEL_DIRECTORY/env.tar"))
    wrapper = tmp_path / "env" / "bin" / "python"
    wrapper.parent.mkdir(parents=True)
    wrapper.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    with tarfile.open(repository.root / "m" / "env.tar", "w") as opened:
        opened.add(wrapper.parent.parent, ".")
    server = start(root, "--model-control-mode=explicit", "--load-model=m").wait_ready()
    answers(server, "m")
    (row,) = json.loads(naiad("ls", "-o", "json").stdout)["items"]
    assert (row["manager"], row["archive"], row["used_by"]) == ("ARCHIVE", "env.tar", ["a server"])
    refused = naiad("rm", row["name"])
    assert refused.returncode == 1, refused.stdout
    assert "is in use by a running server; unload its models first" in refused.stderr
    os.kill(worker_of(server, "m"), signal.SIGKILL)  # its replacement needs what the first one had
    server.until(lambda: server.infer("m", ROW).status == 200, 30, "does not answer")
    assert server.post("/v2/repository/models/m/unload").status == 200
    server.until(lambda: naiad("rm", row["name"]).returncode == 0, 30, "the archive stays in use")
    assert json.loads(naiad("ls", "-o", "json").stdout)["items"] == []
    assert server.post("/v2/repository/models/m/load").status == 200
    answers(server, "m")


def test_a_folder_with_python_3_9_beside_a_newer_one(python39, root, repository, start):
    repository.identity("old", extra=brought(str(python39)))
    repository.identity("new")
    server = start(root).wait_ready()
    for model in ("old", "new"):
        answers(server, model)
    assert Path(executable(worker_of(server, "old"))).resolve().name == "python3.9"


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("/nonexistent/env.tar.gz", "there is no such file or folder"),
        ("$$TRITON_MODEL_DIRECTORY/gone.tar.gz", "there is no such file or folder"),
        ("$$TRITON_MODEL_DIRECTORY/../other/env", "expected a path inside the model's directory"),
        ("$$TRITON_MODEL_DIRECTORY/link", "leads out of the model's directory"),
        ("env.tar.gz", "expected an absolute path or one that begins with $$TRITON_MODEL_DIRECTORY/"),
        ("/tmp/../etc", "expected an absolute path or one that begins with $$TRITON_MODEL_DIRECTORY/"),
        ("$$TRITON_MODEL_DIRECTORY/1", "it has no bin/python"),
        ("$$TRITON_MODEL_DIRECTORY/config.pbtxt", "the archive cannot be read"),
        ("$$TRITON_MODEL_DIRECTORY/broken", "its Python does not run"),
    ],
)
def test_a_wrong_path_fails_the_load_and_is_named(value, says, root, repository, start):  # Triton's issue 3222
    repository.identity("m", extra=brought(value))
    (repository.root / "m" / "link").symlink_to("/usr")
    broken = repository.root / "m" / "broken" / "bin" / "python"
    broken.parent.mkdir(parents=True)
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    server = start(root).wait_settled("m")
    row = server.index()["m"]
    assert row["state"] == "UNAVAILABLE"
    assert value in row["reason"]
    assert says in row["reason"]


def test_a_load_call_names_no_place_of_the_machine(python39, root, repository, start):  # C2
    repository.identity("m")
    server = start(root, "--model-control-mode=explicit").wait_ready()
    text = '{"backend":"identity","max_batch_size":8,"input":[{"name":"INPUT0","data_type":"TYPE_FP32","dims":[16]}],'
    text += '"output":[{"name":"OUTPUT0","data_type":"TYPE_FP32","dims":[16]}],'
    text += f'"parameters":{{"EXECUTION_ENV_PATH":{{"string_value":"{python39}"}}}}}}'
    answer = server.post("/v2/repository/models/m/load", {"parameters": {"config": text}})
    assert answer.status == 400
    assert "a load call names no path" in answer.error
    assert server.post("/v2/repository/models/m/load").status == 200


def test_paths_can_be_forbidden(python39, root, repository, start):
    repository.identity("m", extra=brought("$$TRITON_MODEL_DIRECTORY/env"))
    shutil.copytree(python39 / "bin", repository.root / "m" / "env" / "bin", symlinks=True)
    server = start(root, "--allow-environment-path=false").wait_settled("m")
    assert "named environments only" in server.index()["m"]["reason"]


USES_TINY = """
import sys
import tiny

def execute(self, requests):
    version = float(self.tiny.version) + self.sys.version_info[1] * 100
    return [
        pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.array([[version]], dtype=np.float32))])
        for _ in requests
    ]
"""


def test_a_python_model_imports_what_its_environment_holds(store, root, repository, start, real_wheelhouse):
    store.create("newer", wish(real_wheelhouse, "tiny>=2\n"))
    store.build("newer", offline=True)
    for model, name in (("one", "small"), ("two", "newer"), ("none", "")):
        repository.python(model, USES_TINY, config=PYTHON + (parameter("naiad.environment", name) if name else ""))
    server = start(root).wait_settled("one", "two", "none")
    tensor = {"name": "IN", "shape": [1, 1], "datatype": "FP32", "data": [0]}
    minor = sys.version_info[1] * 100
    for model in ("one", "two"):
        answer = server.post(f"/v2/models/{model}/infer", {"inputs": [tensor]})
        assert answer.status == 200, answer.body
        assert answer.json["outputs"][0]["data"] == [minor + (1 if model == "one" else 2)]
    assert "No module named 'tiny'" in server.index()["none"]["reason"]


def test_a_module_that_an_environment_lacks_is_named_with_its_line(store, root, repository, start):
    code = USES_TINY.replace("import tiny", "import sklearn as tiny")
    repository.python("m", code, config=PYTHON + parameter("naiad.environment", "small"))
    server = start(root).wait_settled("m")
    reason = server.index()["m"]["reason"]
    assert "No module named 'sklearn'" in reason
    assert "add the line 'scikit-learn' to its requirements" in reason


def test_a_python_model_in_an_archive_of_python_3_9(python39, root, repository, start):
    code = USES_TINY.replace("import tiny", "import types; tiny = types.SimpleNamespace(version='7')")
    environment = brought("$$TRITON_MODEL_DIRECTORY/env.tar.gz")
    repository.python("m", code, config=PYTHON + environment)
    packed(python39, repository.root / "m" / "env.tar.gz")
    server = start(root).wait_settled("m")
    tensor = {"name": "IN", "shape": [1, 1], "datatype": "FP32", "data": [0]}
    answer = server.post("/v2/models/m/infer", {"inputs": [tensor]})
    assert answer.status == 200, (answer.body, server.index())
    assert answer.json["outputs"][0]["data"] == [907]
