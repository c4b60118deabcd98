"""Python models at load: what they say of themselves, what stops them, and what a dying worker leaves behind."""

from __future__ import annotations

import textwrap

import pytest

from tests.integration.test_python_models import CONFIG, ECHO, EXPLICIT, ask, logged, out, worker_pid
from tests.support.server import Serve, alive

TELLS = """
@staticmethod
def auto_complete_config(config):
    config.add_input({"name": "IN", "data_type": "TYPE_FP32", "dims": [-1]})
    config.add_output({"name": "OUT", "data_type": "TYPE_FP32", "dims": [-1]})
    config.set_max_batch_size(4)
    return config
"""
LOAD = "/v2/repository/models/m/load"


def load_error(server: Serve) -> str:
    answer = server.post(LOAD)
    assert answer.status == 400, answer
    return answer.error


# -- what a model says of itself --------------------------------------------------------------------------------------


def test_a_model_alone_says_what_it_takes(repository, start):
    repository.python("m", ECHO + TELLS)
    server = start().wait_ready()
    assert out(ask(server, "m", 1.0, 2.0)) == [1.0, 2.0]
    metadata = server.get("/v2/models/m").json
    assert (metadata["platform"], metadata["inputs"]) == (
        "python", [{"name": "IN", "datatype": "FP32", "shape": [-1, -1]}]
    )  # fmt: skip


def test_nothing_of_the_process_that_was_asked_survives(repository, start):
    leaves = TELLS.replace("    config.set", '    pb_utils.left = os.getpid(); print("asked"); config.set')
    says = '\ndef initialize(self, args):\n    print("left:", getattr(pb_utils, "left", None))\n'
    repository.python("m", ECHO + "import os\n" + leaves.replace("os.getpid", '__import__("os").getpid') + says)
    server = start().wait_ready()
    logged(server, "asked")
    logged(server, "left: None")
    pids = {
        record["message"]: record["pid"]
        for record in server.records()
        if record.get("model") == "m" and "pid" in record
    }
    assert pids["asked"] != pids["left: None"]
    assert not alive(pids["asked"])


def test_what_is_written_is_completed_or_contradicted(repository, start):
    repository.python("m", ECHO + TELLS, config='input { name: "IN" data_type: TYPE_FP32 dims: [ -1 ] }')
    server = start(EXPLICIT).wait_ready()
    assert server.post(LOAD).status == 200
    assert server.get("/v2/models/m/config").json["max_batch_size"] == 4
    repository.python("m", ECHO + TELLS, config='input { name: "IN" data_type: TYPE_INT8 dims: [ -1 ] }')
    text = "unable to load model 'm', configuration expects datatype TYPE_INT8 for input 'IN', model provides TYPE_FP32"
    assert text in load_error(server)
    repository.python("m", ECHO + TELLS, config="max_batch_size: 16")
    assert "configuration specified max_batch_size 16, but in auto-complete-config function" in load_error(server)
    assert out(ask(server, "m", 1.0)) == [1.0], "a failed reload took the old version away"


def test_auto_completion_can_be_switched_off(repository, start):
    repository.python("m", ECHO + TELLS)
    server = start(EXPLICIT, "--disable-auto-complete-config").wait_ready()
    assert "write name, data_type and dims into config.pbtxt" in load_error(server)
    assert "asked" not in server.log.read_text()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("return None", "auto_complete_config function in model 'm' must return a valid pb.ModelConfig object."),
        ("raise KeyError('x')", "auto_complete_config() fails with KeyError: 'x' (line 9)"),
        ("config.as_dict()['input'] = {1, 2}; return config", "gives what is no JSON"),
        ("config.as_dict()['backend'] = 'x'; return config", "auto_complete_config: backend: it cannot be set"),
        ("config.as_dict()['nonsense'] = 'x'; return config", "a configuration has no field 'nonsense'"),
        ("return config", "or let auto_complete_config of the model call add_input"),
        ("import ctypes; ctypes.string_at(0)", "the worker process ended during DESCRIBE (signal 11"),
        ("exit(5)", "auto_complete_config() fails with SystemExit: 5"),
        ("config.set_model_transaction_policy({'decoupled': True}); config.add_input({'name': 'IN', 'data_type': "
         "'TYPE_FP32', 'dims': [1]}); config.add_output({'name': 'OUT', 'data_type': 'TYPE_FP32', 'dims': [1]}); "
         "return config", "decoupled Python models come with a later version of Naiad"),
    ],
)  # fmt: skip
def test_what_cannot_come_of_it_is_a_load_error(repository, start, body, text):
    repository.python("m", f"@staticmethod\ndef auto_complete_config(config):\n    pass\n    {body}\n{ECHO}")
    server = start(EXPLICIT).wait_ready()
    error = load_error(server)
    assert text in error
    assert str(repository.root) not in error
    repository.python("m", TELLS + ECHO)
    assert server.post(LOAD).status == 200
    assert out(ask(server, "m", 1.0)) == [1.0]


def test_one_that_never_answers_is_stopped(repository, start):
    repository.python("m", TELLS.replace("    return config", "    __import__('threading').Event().wait()") + ECHO)
    server = start(EXPLICIT, "--model-load-timeout-secs=1").wait_ready()
    assert "DESCRIBE took longer than 1 s; the worker was stopped" in load_error(server)


# -- what stops a load ------------------------------------------------------------------------------------------------

BROKEN = {
    "no class": ("x = 1\n", "'model.py' has no class TritonPythonModel"),
    "syntax": ("class TritonPythonModel:\n    def execute(self\n", "'model.py' line 2: '(' was never closed"),
    "no execute": ("class TritonPythonModel:\n    pass\n", "'model.py' does not implement `execute` method."),
    "module": (
        "import os\nimport cv2_of_nobody\nclass TritonPythonModel:\n    def execute(self, requests): ...\n",
        "'model.py' line 2: No module named 'cv2_of_nobody' (MISSING_MODULE)",
    ),
    "import": (
        "1 / 0\nclass TritonPythonModel:\n    def execute(self, requests): ...\n",
        "'model.py': importing it fails with ZeroDivisionError: division by zero (line 1)",
    ),
    "neighbour": (
        "import bad\nclass TritonPythonModel:\n    def execute(self, requests): ...\n",
        "'bad.py' line 1: invalid syntax",
    ),
    "initialize": (
        "class TritonPythonModel:\n    def initialize(self, args):\n        open('/nowhere')\n"
        "    def execute(self, requests): ...\n",
        "initialize() fails with FileNotFoundError: [Errno 2] No such file or directory: '/nowhere' (line 3)",
    ),
    "no exception": (
        "class Panic(BaseException): ...\nclass TritonPythonModel:\n    def initialize(self, args):\n"
        "        raise Panic('fell')\n    def execute(self, requests): ...\n",
        "initialize() fails with Panic: fell (line 4)",
    ),
    "never ready": (
        "class TritonPythonModel:\n    def is_ready(self):\n        __import__('threading').Event().wait()\n"
        "    def execute(self, requests): ...\n",
        "is_ready() took longer than 5 s",
    ),
    "made at import": (
        "def make():\n    return None\nTritonPythonModel = make()\n", "'model.py' has no class TritonPythonModel",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def module_server(module_repository, tmp_path_factory):
    from tests.support.server import serve

    with serve(module_repository.root, tmp_path_factory.mktemp("log") / "serve.log", EXPLICIT) as running:
        yield running.wait_ready()


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_wrong_is_named(module_repository, module_server, case):
    text, message = BROKEN[case]
    module_repository.file("m", text.encode(), file="model.py")
    (module_repository.root / "m" / "config.pbtxt").write_text(CONFIG)
    (module_repository.root / "m" / "1" / "bad.py").write_text("def def\n")
    error = load_error(module_server)
    assert message in error
    assert str(module_repository.root) not in error


def test_nothing_of_the_folder_in_which_the_server_was_started_is_imported(repository, start, tmp_path, monkeypatch):
    """Such as another model's, whose version folder has the same number."""
    (tmp_path / "here" / "1").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    for file in ("1/model.py", "helper.py", "naiad_worker.py"):
        (tmp_path / "here" / file).write_text("raise RuntimeError('not mine')\n")
    repository.python("m", "import helper\n" + ECHO, config=CONFIG, helper="WORD = 'mine'")
    server = start().wait_ready()
    assert out(ask(server, "m", 1.0)) == [1.0]


def test_a_model_that_reads_program_arguments_finds_none(module_repository, module_server):
    reads = "import argparse\nassert not vars(argparse.ArgumentParser().parse_args())\n"
    module_repository.python("m", ECHO, config=CONFIG)
    path = module_repository.root / "m" / "1" / "model.py"
    path.write_text(reads + path.read_text())
    assert module_server.post(LOAD).status == 200
    assert out(ask(module_server, "m", 1.0)) == [1.0]


@pytest.mark.parametrize("value", ["yes", "no", "maybe"])
def test_inputs_are_on_the_cpu_whether_it_is_forced_or_not(module_repository, module_server, value):
    where = ECHO.replace(
        "def execute(self, requests):",
        "def execute(self, requests):\n    assert all(t.is_cpu() for r in requests for t in r.inputs())",
        1,
    )
    forced = f'parameters {{ key: "FORCE_CPU_ONLY_INPUT_TENSORS" value {{ string_value: "{value}" }} }}'
    module_repository.python("m", where, config=CONFIG + forced)
    if value == "maybe":
        text = "parameters 'FORCE_CPU_ONLY_INPUT_TENSORS': expected yes or no, got 'maybe' (CONFIG_INVALID)"
        assert text in load_error(module_server)
        return
    assert module_server.post(LOAD).status == 200
    assert out(ask(module_server, "m", 1.0)) == [1.0]


def test_a_missing_module_names_the_line_to_add(repository, start):
    repository.file("m", b"import cv2_of_nobody, os\nclass TritonPythonModel: ...\n", file="model.py")
    (repository.root / "m" / "config.pbtxt").write_text(CONFIG)
    server = start(EXPLICIT).wait_ready()
    load_error(server)
    logged(server, "failed to load 'm'")  # the record comes after the answer
    (record,) = [record for record in server.records() if record["message"] == "failed to load 'm'"]
    fix = "add the line 'cv2_of_nobody' to the requirements of the model's environment, or: pip install cv2_of_nobody"
    assert (record["fix"], record["stage"]) == (fix, "load")
    assert "ModuleNotFoundError" in record["traceback"]


# -- workers that die -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["import ctypes; ctypes.string_at(0)", "import os; os._exit(1)"])
def test_a_model_that_ends_its_process_takes_nothing_with_it(repository, start, end):
    body = """
    def execute(self, requests):
        array = requests[0].inputs()[0].as_numpy()
        if array[0, 0] < 0:
            self.end()
        return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)]) for request in requests]
    """
    repository.python("m", textwrap.dedent(body) + f"\ndef end(self):\n    {end}\n", config=CONFIG)
    repository.python("other", ECHO, config=CONFIG)
    server = start().wait_ready()
    worker = worker_pid(server)
    assert out(ask(server, "m", 1.0)) == [1.0]
    answer = ask(server, "m", -1.0)
    assert answer.status == 503
    assert " the process of model 'm' " in answer.error
    assert out(ask(server, "other", 2.0)) == [2.0]
    server.until(lambda: ask(server, "m", 3.0).status == 200, 30, "the model does not answer again")
    assert out(ask(server, "m", 3.0)) == [3.0]
    assert server.process.poll() is None
    assert worker_pid(server) != worker
