"""Triton's Python models: what they are handed, what they may give back, and what happens when they fail."""

from __future__ import annotations

import importlib
import json
import os
import signal
import struct
import textwrap
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.support.server import Answer, Serve, alive

EXPLICIT = "--model-control-mode=explicit"
CONFIG = """backend: "python" max_batch_size: 8 dynamic_batching { }
input { name: "IN" data_type: TYPE_FP32 dims: [ -1 ] }
output { name: "OUT" data_type: TYPE_FP32 dims: [ -1 ] }
"""
NO_BATCH = CONFIG.replace("max_batch_size: 8 dynamic_batching { }", "max_batch_size: 0")
ECHO = """
def execute(self, requests):
    return [self.one(request) for request in requests]

def one(self, request):
    array = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
    return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)])
"""
FAILED = "Failed to process the request(s) for model 'm_0', message: "


def ask(server: Serve, model: str, *values: float, **more: Any) -> Answer:
    tensor = {"name": "IN", "shape": [1, len(values)], "datatype": "FP32", "data": list(values)}
    return server.post(f"/v2/models/{model}/infer", {"inputs": [tensor], **more})


def together(server: Serve, model: str, numbers: list[float]) -> list[Answer]:
    with ThreadPoolExecutor(len(numbers)) as pool:
        return list(pool.map(lambda number: ask(server, model, number), numbers))


def out(answer: Answer) -> list[float]:
    assert answer.status == 200, answer
    return answer.json["outputs"][0]["data"]


def logged(server: Serve, text: str) -> None:
    server.until(lambda: text in server.log.read_text(), 10, f"'{text}' is not in the log")


def test_a_list_holds_several_requests_and_each_gets_its_own_answer(repository, start):
    repository.python(
        "m",
        """
        def execute(self, requests):
            arrays = [pb_utils.get_input_tensor_by_name(request, "IN").as_numpy() for request in requests]
            count = np.float32(len(requests))
            return [
                pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.append(array, count).reshape(1, -1))])
                for array in arrays
            ]
        """,
        config=CONFIG,
    )
    server = start(environment={"TRITONSERVER_DELAY_SCHEDULER": "6"}).wait_ready()
    numbers = [float(number) for number in range(6)]
    assert [out(answer) for answer in together(server, "m", numbers)] == [[number, 6.0] for number in numbers]
    (stats,) = server.get("/v2/models/m/stats").json["model_stats"]
    assert (stats["inference_count"], stats["execution_count"]) == (6, 1)


def test_one_request_fails_with_its_code_and_the_others_do_not(repository, start):
    repository.python(
        "m",
        """
        CODES = [
            "UNKNOWN", "INTERNAL", "NOT_FOUND", "INVALID_ARG", "UNAVAILABLE", "UNSUPPORTED", "ALREADY_EXISTS",
            "CANCELLED",
        ]

        def execute(self, requests):
            return [self.one(request) for request in requests]

        def one(self, request):
            array = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()
            number = int(array.reshape(-1)[0])
            if number < len(self.CODES):
                code = getattr(pb_utils.TritonError, self.CODES[number])
                return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"no {number}", code))
            return pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array)])
        """,
        config=CONFIG,
    )
    server = start(environment={"TRITONSERVER_DELAY_SCHEDULER": "9"}).wait_ready()
    answers = together(server, "m", [float(number) for number in range(9)])
    assert [answer.status for answer in answers] == [400, 500, 404, 400, 503, 501, 400, 400, 200]
    assert [answer.error for answer in answers[:8]] == [f"no {number}" for number in range(8)]
    assert out(answers[8]) == [8.0]
    tensor = triton.InferInput("IN", [1, 1], "FP32")
    tensor.set_data_from_numpy(np.array([[7]], dtype=np.float32))
    with triton.InferenceServerClient(server.grpc) as client, pytest.raises(InferenceServerException) as caught:
        client.infer("m", [tensor])
    assert (caught.value.status(), caught.value.message()) == ("StatusCode.CANCELLED", "no 7")


SAID = """backend: "python" max_batch_size: 0
input { name: "IN" data_type: TYPE_FP32 dims: [ -1 ] }
output { name: "SAID" data_type: TYPE_STRING dims: [ 1 ] }
output { name: "IN_FULL" data_type: TYPE_FP32 dims: [ -1 ] }
"""


@pytest.mark.parametrize("kind", ["http", "grpc"])
def test_a_model_reads_what_a_request_says_and_gives_what_it_asks_for(repository, start, kind):
    repository.python(
        "m",
        """
        def execute(self, requests):
            return [self.one(request) for request in requests]

        def one(self, request):
            wanted = request.requested_output_names()
            said = [request.request_id(), request.timeout(), request.priority(), request.correlation_id(),
                    request.flags(), wanted, request.parameters()]
            made = {
                "SAID": lambda: np.array([__import__("json").dumps(said)], dtype=object),
                "IN_FULL": pb_utils.get_input_tensor_by_name(request, "IN").as_numpy,
            }
            names = made if request.parameters() else wanted
            return pb_utils.InferenceResponse([pb_utils.Tensor(name, made[name]()) for name in names])
        """,
        config=SAID,
    )
    server = start().wait_ready()
    triton = importlib.import_module(f"tritonclient.{kind}")
    tensor = triton.InferInput("IN", [2], "FP32")
    tensor.set_data_from_numpy(np.array([1, 2], dtype=np.float32))
    everything = {"request_id": "r", "timeout": 9_000_000, "priority": 3, "sequence_id": 41, "sequence_end": True}
    with triton.InferenceServerClient(server.grpc if kind == "grpc" else server.address) as client:

        def said(outputs: list[str], **more: Any) -> tuple[list[Any], bool]:
            """What the model read, and whether the other output came along."""
            asked = [triton.InferRequestedOutput(name) for name in outputs]
            result = client.infer("m", [tensor], outputs=asked or None, **more)
            return json.loads(result.as_numpy("SAID")[0]), result.as_numpy("IN_FULL") is not None

        plain = ["", 0, 0, 0, 0, ["SAID", "IN_FULL"], ""]
        assert said([]) == (plain, True)
        assert said(["SAID"], **everything) == (["r", 9_000_000, 3, 41, 2, ["SAID"], ""], False)
        # Here the model makes both whatever it is asked for.
        parameters = {"both": True}
        assert said(["SAID"], parameters=parameters) == (["", 0, 0, 0, 0, ["SAID"], '{"both":true}'], False)


RETURNS = {
    "None": "Expected a list in the execute return, found type '<class 'NoneType'>'.",
    "tuple(requests)": "Expected a list in the execute return, found type '<class 'tuple'>'.",
    "[]": "Number of InferenceResponse objects do not match the number of InferenceRequest objects. "
    "InferenceRequest(s) size is:1, and InferenceResponse(s) size is:0\n",
    "[1]": "Expected an 'InferenceResponse' object in the execute function return list, found type '<class 'int'>'.",
    "[None]": "Expected an 'InferenceResponse' object in the execute function return list, found type "
    "'<class 'NoneType'>'.",
    "1 / 0": "ZeroDivisionError: division by zero",
    "exit(3)": "SystemExit: 3",
    "(_ for _ in ()).throw(BaseException('panic'))": "BaseException: panic",
    "(_ for _ in ()).throw(__import__('asyncio').CancelledError('late'))": "CancelledError: late",
    "[self.twice()]": "the response has output 'OUT' twice",
    "[self.other()]": "the response has output 'OTHER', expected one of the configuration's: 'OUT'",
}


def test_what_execute_may_not_return_is_an_error_with_tritons_text(repository, start):
    repository.python(
        "m",
        """
        def execute(self, requests):
            code = requests[0].parameters()
            return eval(__import__("json").loads(code)["code"])

        def twice(self):
            tensor = pb_utils.Tensor("OUT", np.zeros((1, 1), np.float32))
            return pb_utils.InferenceResponse([tensor, tensor])

        def other(self):
            return pb_utils.InferenceResponse([pb_utils.Tensor("OTHER", np.zeros((1, 1), np.float32))])
        """,
        config=CONFIG,
    )
    server = start().wait_ready()
    worker = worker_pid(server)
    for code, text in RETURNS.items():
        answer = ask(server, "m", 1.0, parameters={"code": code})
        assert (answer.status, answer.error) == (500, FAILED + text), code
    wrong = ask(server, "m", 1.0, parameters={"code": WRONG_TYPE})
    assert wrong.status == 500
    assert wrong.error == "output 'OUT' of model 'm' has data-type 'INT64', but its configuration says 'FP32'"
    huge = ask(server, "m", 1.0, parameters={"code": "[pb_utils.InferenceResponse(parameters={'a': 'x' * 99999})]"})
    assert (huge.status, "parameters take 100007 bytes, at most 32768" in huge.error) == (500, True)
    assert worker_pid(server) == worker, "an error ended the worker"
    logged(server, "ZeroDivisionError: division by zero")
    logged(server, "in execute")


WRONG_TYPE = "[pb_utils.InferenceResponse([pb_utils.Tensor('OUT', np.zeros((1, 1), np.int64))])]"


def worker_pid(server: Serve) -> int:
    """The newest worker of model `m`."""
    ready = [record for record in server.records() if record["message"] == "worker ready" and record["model"] == "m"]
    return int(ready[-1]["pid"])


def test_an_output_that_nobody_declared_is_left_out_and_told_of_once(repository, start):
    repository.python(
        "m",
        """
        def execute(self, requests):
            zeros = np.zeros((1, 1), np.float32)
            tensors = [pb_utils.Tensor("OUT", zeros), pb_utils.Tensor("DEBUG", zeros)]
            return [pb_utils.InferenceResponse(tensors) for request in requests]
        """,
        config=CONFIG,
    )
    server = start().wait_ready()
    for _ in range(2):
        answer = ask(server, "m", 1.0)
        assert [output["name"] for output in answer.json["outputs"]] == ["OUT"]
    logged(server, "output 'DEBUG', expected one of the configuration's: 'OUT'; it is left out")
    assert server.log.read_text().count("'DEBUG'") == 1


def test_a_coroutine_and_a_sender_are_answers_too(repository, start):
    repository.python(
        "m",
        """
        async def execute(self, requests):
            import asyncio
            self.loop = getattr(self, "loop", asyncio.get_running_loop())
            assert self.loop is asyncio.get_running_loop()
            await asyncio.sleep(0)
            return [
                pb_utils.InferenceResponse([pb_utils.Tensor("OUT", request.inputs()[0].as_numpy() + 1)])
                for request in requests
            ]
        """,
        config=CONFIG,
    )
    repository.python(
        "sender",
        """
        def execute(self, requests):
            for request in requests:
                response = pb_utils.InferenceResponse([pb_utils.Tensor("OUT", request.inputs()[0].as_numpy() + 2)])
                sender = request.get_response_sender()
                sender.send(response, flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
            return None
        """,
        config=CONFIG,
    )
    server = start().wait_ready()
    assert [out(ask(server, "m", 1.0)) for _ in range(2)] == [[2.0], [2.0]]
    assert out(ask(server, "sender", 1.0)) == [3.0]


def test_neighbours_of_the_file_are_found_and_nothing_is_written_beside_it(repository, start):
    repository.python(
        "m",
        """
        def initialize(self, args):
            from .nested import WORD
            import helper
            assert (WORD, helper.WORD) == ("nested", "helper")
            assert pb_utils.get_model_dir() == args["model_repository"] + "/3"
            self.args = args

        def execute(self, requests):
            parameters = {key: value for key, value in self.args.items() if key != "model_repository"}
            parameters["all_strings"] = all(isinstance(value, str) for value in self.args.values())
            parameters["repository"] = self.args["model_repository"].rpartition("/")[2]
            return [pb_utils.InferenceResponse([], parameters=parameters) for request in requests]
        """,
        config=CONFIG,
        version=3,
        helper="WORD = 'helper'",
        nested="WORD = 'nested'",
    )
    server = start().wait_ready()
    answer = ask(server, "m", 1.0)
    assert answer.status == 200, answer
    said = answer.json["parameters"]
    assert '"max_batch_size": 8' in said.pop("model_config")
    assert said == {
        "model_instance_kind": "CPU",
        "model_instance_name": "m_0",
        "model_instance_device_id": "0",
        "model_version": "3",
        "model_name": "m",
        "all_strings": True,
        "repository": "m",
    }
    assert not list(repository.root.rglob("__pycache__"))


def test_print_reaches_the_log_and_finalize_runs_at_unload(repository, start):
    body = ECHO + '\ndef initialize(self, args):\n    print("born", args["model_name"])\n'
    repository.python("m", body + '\ndef finalize(self):\n    print("buried")\n', config=CONFIG)
    server = start(EXPLICIT, "--load-model=m").wait_ready()
    logged(server, "born m")
    assert server.post("/v2/repository/models/m/unload").status == 200
    logged(server, "buried")


def test_instances_are_added_to_a_model_that_described_itself(repository, start):
    tells = """
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "IN", "data_type": "TYPE_FP32", "dims": [-1]})
        config.add_output({"name": "OUT", "data_type": "TYPE_FP32", "dims": [-1]})
        config.set_max_batch_size(8)
        return config

    def initialize(self, args):
        print("instance", args["model_instance_name"])
    """
    repository.python("m", ECHO + textwrap.dedent(tells), config="instance_group { count: 1 }")
    server = start(EXPLICIT, "--load-model=m").wait_ready()
    worker = worker_pid(server)
    (repository.root / "m" / "config.pbtxt").write_text("instance_group { count: 2 }")
    assert server.post("/v2/repository/models/m/load").status == 200
    logged(server, "instance m_0_1")
    assert worker_pid(server) != worker
    assert alive(worker), "the instance that served was started anew"
    assert out(ask(server, "m", 1.0)) == [1.0]
    os.kill(worker, signal.SIGKILL)
    server.until(lambda: len([r for r in server.records() if r["message"] == "worker restarted"]) == 1, 20, "not again")
    assert [out(ask(server, "m", float(number))) for number in range(4)] == [[0.0], [1.0], [2.0], [3.0]]


def test_a_finalize_that_hangs_does_not_keep_its_worker(repository, start):
    hang = '\ndef finalize(self):\n    print("hanging", flush=True)\n    __import__("threading").Event().wait()\n'
    repository.python("m", ECHO + hang, config=CONFIG)
    server = start(EXPLICIT, "--load-model=m").wait_ready()
    worker = worker_pid(server)
    assert server.post("/v2/repository/models/m/unload").status == 200
    logged(server, "hanging")
    server.until(lambda: not alive(worker), 20, "the worker lives")


def test_a_model_is_ready_when_it_says_so(repository, start):
    body = """
    asked = 0

    async def is_ready(self):
        self.asked += 1
        return self.asked > 2
    """
    count = '\ndef execute(self, requests):\n    parameters = {"asked": self.asked}\n'
    count += "    return [pb_utils.InferenceResponse([], parameters=parameters) for request in requests]\n"
    repository.python("m", textwrap.dedent(body) + count, config=CONFIG)
    server = start().wait_ready()
    assert ask(server, "m", 1.0).json["parameters"] == {"asked": 3}


def test_a_warm_up_sample_runs_before_the_first_request(repository, start):
    sample = """model_warmup { name: "s" batch_size: 2 inputs { key: "IN"
      value { data_type: TYPE_FP32 dims: [ 3 ] zero_data: true } } }"""
    repository.python("m", 'def execute(self, requests):\n    print("ran", len(requests))\n    return None\n')
    (repository.root / "m" / "config.pbtxt").write_text(CONFIG + sample)
    repository.python("n", ECHO.replace("array =", 'print("warm"); array ='), config=CONFIG + sample)
    server = start(EXPLICIT, "--load-model=n").wait_ready()
    logged(server, "warm")
    refused = server.post("/v2/repository/models/m/load")
    assert refused.status == 400
    assert "warmup sample 's': _WrongReturn: Expected a list in the execute return" in refused.error


def test_outputs_may_be_larger_than_anybody_thought(repository, start):
    repository.python(
        "m",
        """
        def execute(self, requests):
            return [
                pb_utils.InferenceResponse([pb_utils.Tensor("OUT", np.full((1, size), size, np.float32))])
                for size in [int(request.inputs()[0].as_numpy()[0, 0]) for request in requests]
            ]
        """,
        config=CONFIG,
    )
    server = start(environment={"TRITONSERVER_DELAY_SCHEDULER": "3"}).wait_ready()
    sizes = [100_000.0, 1.0, 300_000.0]
    answers = together(server, "m", sizes)
    assert [(answer.status, len(out(answer)), out(answer)[-1]) for answer in answers] == [
        (200, int(size), size) for size in sizes
    ]


def test_bf16_goes_through_dlpack(repository, start):
    text = CONFIG.replace("TYPE_FP32", "TYPE_BF16")
    dlpack = ECHO.replace(
        'array = pb_utils.get_input_tensor_by_name(request, "IN").as_numpy()', "tensor = request.inputs()[0]"
    ).replace('pb_utils.Tensor("OUT", array)', 'pb_utils.Tensor.from_dlpack("OUT", tensor.to_dlpack())')
    repository.python("m", dlpack, config=text)
    server = start().wait_ready()
    tensor = {"name": "IN", "shape": [1, 2], "datatype": "BF16", "data": [1.5, -2]}
    answer = server.post("/v2/models/m/infer", {"inputs": [tensor]})
    assert (answer.status, answer.json["outputs"][0]["data"]) == (200, [1.5, -2.0])


def test_strings_are_arrays_of_bytes(repository, start):
    repository.python(
        "m",
        """
        def execute(self, requests):
            array = requests[0].inputs()[0].as_numpy()
            assert array.dtype == np.object_ and all(type(element) is bytes for element in array.reshape(-1))
            assert pb_utils.numpy_to_triton_type(array.dtype) == requests[0].inputs()[0].triton_dtype() == 13
            return [pb_utils.InferenceResponse([pb_utils.Tensor("OUT", array[:, ::-1])])]
        """,
        config=CONFIG.replace("TYPE_FP32", "TYPE_STRING"),
    )
    server = start().wait_ready()
    raw = b"".join(struct.pack("<I", len(text)) + text for text in (b"\xff\x00", b"", b"abc"))
    head = b'{"inputs":[{"name":"IN","shape":[1,3],"datatype":"BYTES","parameters":{"binary_data_size":%d}}],' % len(
        raw
    )
    head += b'"outputs":[{"name":"OUT","parameters":{"binary_data":true}}]}'
    answer = server.post("/v2/models/m/infer", head + raw, Inference_Header_Content_Length=str(len(head)))
    assert answer.status == 200, answer
    assert answer.body.endswith(b"\x03\x00\x00\x00abc\x00\x00\x00\x00\x02\x00\x00\x00\xff\x00")


@pytest.mark.parametrize("call", ["request.exec()", "pb_utils.load_model('x')"])
def test_what_comes_later_is_a_clear_error(repository, start, call):
    repository.python("m", f"def execute(self, requests):\n    request = requests[0]\n    {call}\n", config=CONFIG)
    server = start().wait_ready()
    answer = ask(server, "m", 1.0)
    assert answer.status == 500
    assert answer.error.endswith("come with a later version of Naiad") or "comes with a later version" in answer.error
