"""What a Python model says besides its answers: lines in the log, and whether it is ready."""

from __future__ import annotations

import textwrap

import pytest
import tritonclient.grpc as triton

from tests.integration.test_python_models import CONFIG, ECHO, ask, logged
from tests.support.server import Serve


@pytest.mark.parametrize("level", ["0", "1"])
def test_verbose_lines_come_with_a_verbose_log(repository, start, level):
    body = ECHO + '\ndef initialize(self, args):\n    pb_utils.Logger.log_verbose("fine print")\n    print("said")\n'
    repository.python("m", body, config=CONFIG)
    server = start(f"--log-verbose={level}").wait_ready()
    logged(server, "said")
    lines = [record["message"] for record in server.records() if record["level"] == "verbose"]
    fine = [line for line in lines if "fine print" in line]
    assert [line.partition(": ")[2] for line in fine] == (["fine print"] if level == "1" else [])


def test_lines_of_a_model_keep_their_level(repository, start):
    body = """
    def initialize(self, args):
        import logging, warnings
        pb_utils.Logger.log_info("said")
        pb_utils.Logger.log_error("first\\nsecond")
        warnings.warn("outworn")
        logging.getLogger("lib").warning("unconfigured")
        logging.basicConfig()
        logging.error("configured")
        print("plain", flush=True)
        __import__("os").system("echo child >&2")

    """
    repository.python("m", textwrap.dedent(body) + "\ndef execute(self, requests):\n    1 / 0\n", config=CONFIG)
    server = start().wait_ready()
    assert ask(server, "m", 1.0).status == 500
    logged(server, "ZeroDivisionError")
    wanted = {
        "said": "info", "first": "error", "second": "error", "UserWarning: outworn": "warning",
        "unconfigured": "warning", "ERROR:root:configured": "error", "plain": "info", "child": "info",
        "Traceback (most": "error", "1 / 0": "error", "ZeroDivisionError: division": "error",
    }  # fmt: skip
    server.until(lambda: set(wanted) <= {key for key in wanted if levels(server, key)}, 10, "lines are missing")
    assert {key: levels(server, key) for key in wanted} == {key: {level} for key, level in wanted.items()}


def levels(server: Serve, text: str) -> set[str]:
    """Levels of the records of model `m` that hold the text."""
    records = [record for record in server.records() if record.get("model") == "m" and "pid" in record]
    return {record["level"] for record in records if text in record["message"]}


def test_a_model_that_serves_is_asked_whether_it_is_ready(repository, start):
    body = """
    ready = True

    def is_ready(self):
        if self.ready == "hang":
            __import__("threading").Event().wait()
        if self.ready == "raise":
            raise RuntimeError("no idea")
        return self.ready

    def execute(self, requests):
        self.ready = __import__("json").loads(requests[0].parameters())["ready"]
        return [pb_utils.InferenceResponse([]) for request in requests]
    """
    repository.python("m", textwrap.dedent(body), config=CONFIG)
    server = start().wait_ready()
    with triton.InferenceServerClient(server.grpc) as client:

        def says(ready: object) -> tuple[int, str, bool]:
            """What the two frontends say once the model thinks so."""
            assert ask(server, "m", 1.0, parameters={"ready": ready}).status == 200
            answer = server.get("/v2/models/m/ready")
            return answer.status, answer.json.get("error", ""), client.is_model_ready("m")

        no = (400, "Model version not ready", False)
        assert says(True) == (200, "", True)
        assert says(False) == no
        assert says("raise") == no
        assert says(True) == (200, "", True)
        # It answers requests all the same, and a question that hangs neither holds them up nor the end.
        assert says("hang") == no
        assert ask(server, "m", 1.0, parameters={"ready": True}).status == 200
        assert server.get("/v2/health/ready").status == 200
    assert server.stop() == 0
