"""Every public method of the four stock tritonclient classes, against a real server.

The table in docs/reference/client-methods.md names the test of each method; the last tests here hold it to the classes.
"""

from __future__ import annotations

import base64
import importlib
import inspect
import json
import queue
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tritonclient.utils import InferenceServerException, shared_memory

from tests.support.clients import CLIENTS, ROW, Client
from tests.support.repository import Repository
from tests.support.server import serve

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "client-methods.md"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Any:
    folder = tmp_path_factory.mktemp("methods")
    repository = Repository(folder / "models")
    for name in ("m", "loadable"):
        repository.identity(name, dims="4")
    options = ["--model-control-mode=explicit", "--load-model=m"]
    with serve(repository.root, folder / "serve.log", *options) as running:
        yield running.wait_ready()


@pytest.fixture(scope="module")
def sharing(tmp_path_factory) -> Any:
    folder = tmp_path_factory.mktemp("sharing")
    repository = Repository(folder / "models")
    repository.identity("m", dims="4")
    with serve(repository.root, folder / "serve.log", "--allow-client-shm=true") as running:
        yield running.wait_ready()


@pytest.fixture(params=CLIENTS)
async def client(request, server) -> AsyncIterator[Client]:
    made = Client(request.param, server)
    yield made
    await made.call("close")


async def test_health(client):
    assert await client.call("is_server_live")
    assert await client.call("is_server_ready")
    assert await client.call("is_model_ready", "m")
    assert await client.call("is_model_ready", "m", "1")
    assert not await client.call("is_model_ready", "nope")


async def test_close(client, server):
    other = Client(client.name, server)
    assert await other.call("is_server_live")
    await other.call("close")


async def test_metadata(client):
    assert (await client.call("get_server_metadata"))["name"] == "naiad"
    model = await client.call("get_model_metadata", "m")
    assert [int(dim) for dim in model["inputs"][0]["shape"]] == [-1, 4]
    with pytest.raises(InferenceServerException, match="Request for unknown model: 'nope' is not found"):
        await client.call("get_model_metadata", "nope")


async def test_configuration(client):
    answer = await client.call("get_model_config", "m")
    config = answer["config"] if client.grpc else answer
    assert config["max_batch_size"] == 8
    assert config["input"][0]["data_type"] == "TYPE_FP32"


async def test_infer(client):
    output = client.module.InferRequestedOutput("OUTPUT0")
    options = {"outputs": [output], "request_id": "7", "priority": 0, "parameters": {"mine": "x"}}
    result = await client.call("infer", "m", [client.input()], "1", **options)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), ROW)
    response = result.get_response()
    assert (response.id if client.grpc else response["id"]) == "7"
    with pytest.raises(InferenceServerException, match="unexpected shape for input 'INPUT0'"):
        await client.call("infer", "m", [client.input(np.zeros((1, 3), np.float32))])


@pytest.mark.parametrize("client", ["http", "grpc"], indirect=True)
async def test_async_infer(client):
    if client.name == "http":
        pending = [client.stock.async_infer("m", [client.input()]) for _ in range(4)]
        results = [each.get_result() for each in pending]
    else:
        done: queue.Queue[Any] = queue.Queue()
        for _ in range(4):
            client.stock.async_infer("m", [client.input()], lambda result, error: done.put(error or result))
        results = [done.get(timeout=30) for _ in range(4)]
    for result in results:
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), ROW)


@pytest.mark.parametrize("client", ["grpc", "grpc.aio"], indirect=True)
async def test_streams(client):
    """W53: the refusal in the middle does not end the stream. W56: replies keep the order of requests."""
    if client.name == "grpc":
        replies: queue.Queue[Any] = queue.Queue()
        client.stock.start_stream(lambda result, error: replies.put((result, error)))
        for number, model in enumerate(("m", "nope", "m")):
            client.stock.async_stream_infer(model, [client.input()], request_id=str(number))
        got = [replies.get(timeout=30) for _ in range(3)]
        client.stock.stop_stream()
    else:

        async def requests() -> AsyncIterator[dict[str, Any]]:
            for number, model in enumerate(("m", "nope", "m")):
                yield {"model_name": model, "inputs": [client.input()], "request_id": str(number)}

        got = [reply async for reply in client.stock.stream_infer(requests())]
    assert [result.get_response().id for result, error in got if error is None] == ["0", "2"]
    assert "Request for unknown model: 'nope' is not found" in got[1][1].message()


@pytest.mark.parametrize("client", ["grpc"], indirect=True)
async def test_a_stopped_stream_cancels(client):
    """W57."""
    replies: queue.Queue[Any] = queue.Queue()
    client.stock.start_stream(lambda result, error: replies.put((result, error)))
    client.stock.stop_stream(cancel_requests=True)
    assert await client.call("is_server_live")


async def test_statistics(client):
    await client.call("infer", "m", [client.input()])
    row = (await client.call("get_inference_statistics", "m"))["model_stats"][0]
    assert (row["name"], row["version"]) == ("m", "1")
    assert int(row["inference_stats"]["success"]["count"]) >= 1
    everything = await client.call("get_inference_statistics")
    assert "m" in [entry["name"] for entry in everything["model_stats"]]


async def test_load_unload_and_index(client):
    await client.call("load_model", "loadable")
    assert await client.call("is_model_ready", "loadable")
    answer = await client.call("get_model_repository_index")
    rows = {row["name"]: row for row in (answer["models"] if client.grpc else answer)}
    assert rows["loadable"]["state"] == "READY"
    await client.call("unload_model", "loadable")
    assert not await client.call("is_model_ready", "loadable")


async def test_load_with_a_configuration(client):
    """W67: the configuration travels as a string."""
    config = {"backend": "identity", "max_batch_size": 2}
    for kind, name in (("input", "INPUT0"), ("output", "OUTPUT0")):
        config[kind] = [{"name": name, "data_type": "TYPE_FP32", "dims": [4]}]
    await client.call("load_model", "loadable", config=json.dumps(config))
    answer = await client.call("get_model_config", "loadable")
    assert (answer["config"] if client.grpc else answer)["max_batch_size"] == 2
    await client.call("unload_model", "loadable", unload_dependents=True)


async def test_trace_settings(client):
    def setting(answer: Any, name: str) -> Any:
        return answer["settings"][name]["value"] if client.grpc else answer[name]

    def rate(answer: Any) -> str:
        value = setting(answer, "trace_rate")
        return value[0] if client.grpc else value

    assert list(setting(await client.call("get_trace_settings"), "trace_level")) == ["OFF"]
    assert rate(await client.call("get_trace_settings", "m")) == "1000"
    assert rate(await client.call("update_trace_settings", "m", settings={"trace_rate": "5"})) == "5"
    assert rate(await client.call("update_trace_settings", "m", settings={"trace_rate": None})) == "1000"


async def test_log_settings(client):
    answer = await client.call("get_log_settings")
    assert "log_verbose_level" in (answer["settings"] if client.grpc else answer)
    for level in (1, 0):
        answer = await client.call("update_log_settings", settings={"log_verbose_level": level})
        value = answer["settings"]["log_verbose_level"] if client.grpc else answer["log_verbose_level"]
        assert (value.get("uint32_param", 0) if client.grpc else value) == level


@pytest.mark.parametrize("name", CLIENTS)
async def test_system_shared_memory(name, sharing):
    """Data that travels in a region both ways."""
    client = Client(name, sharing)
    size = ROW.nbytes
    region = shared_memory.create_shared_memory_region("both", f"/naiad-{client.name}", 2 * size)
    try:
        shared_memory.set_shared_memory_region(region, [ROW])
        await client.call("register_system_shared_memory", "both", f"/naiad-{client.name}", 2 * size)
        status = await client.call("get_system_shared_memory_status")
        assert "both" in (status["regions"] if client.grpc else [row["name"] for row in status])
        tensor = client.module.InferInput("INPUT0", [1, 4], "FP32")
        tensor.set_shared_memory("both", size)
        output = client.module.InferRequestedOutput("OUTPUT0")
        output.set_shared_memory("both", size, offset=size)
        result = await client.call("infer", "m", [tensor], outputs=[output])
        assert result.get_output("OUTPUT0") is not None
        np.testing.assert_array_equal(shared_memory.get_contents_as_numpy(region, np.float32, [1, 4], size), ROW)
        await client.call("unregister_system_shared_memory", "both")
        status = await client.call("get_system_shared_memory_status")
        assert "both" not in (status.get("regions", {}) if client.grpc else [row["name"] for row in status])
        await client.call("unregister_system_shared_memory")
    finally:
        shared_memory.destroy_shared_memory_region(region)
        await client.call("close")


async def test_shared_memory_that_is_off(client):
    """W73: status answers; register and unregister are refused. CUDA's is always off."""
    for method in ("get_system_shared_memory_status", "get_cuda_shared_memory_status"):
        status = await client.call(method)
        assert not (status.get("regions") if client.grpc else status)
    handle = base64.b64encode(bytes(64))
    for method, arguments in (
        ("register_system_shared_memory", ("r", "/r", 64)),
        ("unregister_system_shared_memory", ("r",)),
        ("unregister_system_shared_memory", ()),
        ("register_cuda_shared_memory", ("r", handle, 0, 64)),
        ("unregister_cuda_shared_memory", ("r",)),
        ("unregister_cuda_shared_memory", ()),
    ):
        with pytest.raises(InferenceServerException, match="Client shared memory is disabled"):
            await client.call(method, *arguments)


async def test_plugins(client):
    """A plugin sees every request and may add headers."""
    seen: list[Any] = []
    plugin_base = importlib.import_module("tritonclient._plugin").InferenceServerClientPlugin

    class Plugin(plugin_base):
        def __call__(self, request: Any) -> None:
            request.headers["x-mine"] = "1"
            seen.append(request)

    client.stock.register_plugin(Plugin())
    assert client.stock.plugin() is not None
    assert await client.call("is_server_live")
    client.stock.unregister_plugin()
    assert client.stock.plugin() is None
    assert len(seen) == 1


def test_bodies_made_apart(server):
    """The HTTP classes make request bodies and read response bodies for other HTTP libraries."""
    for name in ("http", "http.aio"):
        module = importlib.import_module(f"tritonclient.{name}")
        tensor = module.InferInput("INPUT0", [1, 4], "FP32")
        tensor.set_data_from_numpy(ROW)
        body, length = module.InferenceServerClient.generate_request_body([tensor])
        answer = server.post("/v2/models/m/infer", body, Inference_Header_Content_Length=str(length))
        got = int(answer.headers["inference-header-content-length"])
        result = module.InferenceServerClient.parse_response_body(answer.body, header_length=got)
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), ROW)


def listed() -> dict[str, tuple[set[str], str]]:
    """Method → (clients that have it, its test), as the page says."""
    rows = re.findall(r"^\| `(\w+)` \|(.*)\| `(\w+)` \|$", PAGE.read_text(), re.MULTILINE)
    found = {}
    for method, columns, test in rows:
        marks = [column.strip() for column in columns.split("|")]
        found[method] = ({name for name, mark in zip(CLIENTS, marks, strict=True) if mark == "✓"}, test)
    return found


def test_the_page_lists_every_method_of_the_live_classes():
    live: dict[str, set[str]] = {}
    for name in CLIENTS:
        stock = importlib.import_module(f"tritonclient.{name}").InferenceServerClient
        for method, _ in inspect.getmembers(stock, callable):
            if not method.startswith("_"):
                live.setdefault(method, set()).add(name)
    assert {method: clients for method, (clients, _) in listed().items()} == live


@pytest.mark.parametrize("method", sorted(listed()))
def test_the_test_of_a_method_calls_it(method):
    source = inspect.getsource(globals()[listed()[method][1]])
    assert re.search(rf'"{method}"|\.{method}\(', source)
