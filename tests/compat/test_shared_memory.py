"""System shared memory through the four stock clients: what is registered, read and written, and every refusal."""

from __future__ import annotations

import asyncio
import base64
import queue
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException, serialize_byte_tensor

from tests.support.clients import CLIENTS, ROW, Client
from tests.support.regions import Region, region
from tests.support.repository import Repository
from tests.support.server import Serve, serve

SIZE = ROW.nbytes
# A row waits here until seven others have come.
GATHER = "dynamic_batching { preferred_batch_size: [ 8 ] max_queue_delay_microseconds: 20000000 }"
TWO = """backend: "identity"
max_batch_size: 8
input { name: "INPUT0" data_type: TYPE_FP32 dims: [ 4 ] }
input { name: "INPUT1" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "OUTPUT0" data_type: TYPE_FP32 dims: [ 4 ] }
output { name: "OUTPUT1" data_type: TYPE_FP32 dims: [ 4 ] }
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Serve]:
    folder = tmp_path_factory.mktemp("regions")
    repository = Repository(folder / "models")
    repository.identity("m", dims="4")
    repository.identity("large", datatype="UINT8", dims="-1", max_batch=0)
    repository.identity("text", datatype="STRING", dims="2")
    repository.identity("gather", dims="4", extra=GATHER)
    repository.identity("cached", dims="4", extra="response_cache { enable: true }")
    repository.identity("two")
    (repository.root / "two" / "config.pbtxt").write_text(TWO)
    options = ["--allow-client-shm=true", "--cache-config=local,size=1048576"]
    with serve(repository.root, folder / "serve.log", *options) as running:
        yield running.wait_ready()


@pytest.fixture(params=CLIENTS)
async def client(request, server) -> AsyncIterator[Client]:
    made = Client(request.param, server)
    yield made
    await made.call("unregister_system_shared_memory")
    await made.call("close")


@pytest.fixture
def memory() -> Iterator[Region]:
    with region(4096) as made:
        yield made


def there(client: Client, name: str, byte_size: int, offset: int = 0, *, tensor: str = "INPUT0", **given: Any) -> Any:
    """An input that lies in a region."""
    made = client.module.InferInput(tensor, given.get("shape", [1, 4]), given.get("datatype", "FP32"))
    made.set_shared_memory(name, byte_size, offset)
    return made


def into(client: Client, name: str, byte_size: int, offset: int = 0, *, tensor: str = "OUTPUT0") -> Any:
    """An output that goes to a region."""
    made = client.module.InferRequestedOutput(tensor)
    made.set_shared_memory(name, byte_size, offset)
    return made


async def status(client: Client, name: str = "") -> dict[str, Any]:
    answer = await client.call("get_system_shared_memory_status", name)
    rows = answer.get("regions", {}).values() if client.grpc else answer
    return {row["name"]: (row["key"], int(row.get("offset", 0)), int(row["byte_size"])) for row in rows}


CODES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 500: "INTERNAL"}


async def refused(client: Client, code: int, method: str, *arguments: Any, **options: Any) -> str:
    """The text of a refusal, which has this code."""
    with pytest.raises(InferenceServerException) as caught:
        await client.call(method, *arguments, **options)
    expected = {str(code)} if not client.grpc else {f"StatusCode.{CODES[code]}"}
    if client.grpc and "already" in caught.value.message():
        expected = {"StatusCode.ALREADY_EXISTS"}
    assert caught.value.status() in expected, caught.value
    return caught.value.message()


async def test_w74_regions_are_listed_and_forgotten(client, memory):
    await client.call("register_system_shared_memory", "one", memory.key, 64)
    await client.call("register_system_shared_memory", "the other %ü", memory.key.lstrip("/"), 32, 64)
    both = {"one": (memory.key, 0, 64), "the other %ü": (memory.key[1:], 64, 32)}
    assert await status(client) == both
    assert await status(client, "one") == {"one": both["one"]}
    assert await status(client, "the other %ü") == {"the other %ü": both["the other %ü"]}
    assert await refused(client, 404, "get_system_shared_memory_status", "r") == (
        "Unable to find system shared memory region: 'r'"
    )
    await client.call("unregister_system_shared_memory", "unknown")
    await client.call("unregister_system_shared_memory", "one")
    assert set(await status(client)) == {"the other %ü"}
    await client.call("unregister_system_shared_memory")
    assert await status(client) == {}


async def test_w74_w75_what_cannot_be_registered(client, memory):
    async def register(code: int, name: str, key: str, byte_size: int, offset: int = 0) -> str:
        return await refused(client, code, "register_system_shared_memory", name, key, byte_size, offset)

    assert await register(500, "r", "/naiad-absent", 8) == "Unable to open shared memory region: '/naiad-absent'"
    for byte_size, offset in ((4097, 0), (4096, 1), (1, 4096), (0, 0), (8, 2**63 - 1), (2**63 - 1, 2**63 - 1)):
        invalid = "failed to register shared memory region 'r': invalid args"
        assert await register(400, "r", memory.key, byte_size, offset) == invalid
    await client.call("register_system_shared_memory", "r", memory.key, 8)
    assert await register(400, "r", memory.key, 8) == "shared memory region 'r' already in manager"
    reserved = "triton_python_backend_shm_region_"
    for key in ("/", "///", reserved, f"//{reserved}1", "../etc/passwd", "/a/b"):
        assert (await register(400, "s", key, 8)).startswith(
            f"cannot register shared memory region 's' with key '{key}' as "
        )


def test_w74_a_registration_over_http_says_what_it_lacks(server):
    path = "/v2/systemsharedmemory/region/r/register"
    answer = server.post(path, {"byte_size": 8})
    assert (answer.status, answer.error) == (400, "Shared memory register request has no 'key' field")
    answer = server.post(path, {"key": "/k"})
    assert (answer.status, answer.error) == (400, "Shared memory register request has no 'byte_size' field")
    assert server.post(path, {"key": 5, "byte_size": 8}).status == 400
    assert server.post(path, b"{").status == 400
    answer = server.post(path)
    empty = "failed to parse the request JSON buffer: The document is empty. at 0"
    assert (answer.status, answer.error) == (400, empty)


async def test_cuda_regions_are_none(client):
    """As of a Triton without GPUs; what forgets them all goes on."""
    handle = base64.b64encode(bytes(64))
    assert await refused(client, 400, "register_cuda_shared_memory", "r", handle, 0, 64) == (
        "failed to register CUDA shared memory region: 'r', GPUs not supported"
    )
    await client.call("unregister_cuda_shared_memory", "r")
    await client.call("unregister_cuda_shared_memory")


async def test_w77_tensors_travel_in_regions_both_ways(client, memory):
    memory.put(ROW, 128)
    await client.call("register_system_shared_memory", "r", memory.key, 2048, 64)
    tensor, output = there(client, "r", SIZE, 64), into(client, "r", SIZE, 1024)
    result = await client.call("infer", "m", [tensor], outputs=[output], request_id="7")
    np.testing.assert_array_equal(memory.get(np.float32, [1, 4], 64 + 1024), ROW)
    response = result.get_response()
    if client.grpc:
        (shown,) = response.outputs
        plain = pb.ModelInferResponse.InferOutputTensor(name="OUTPUT0", datatype="FP32", shape=[1, 4])
        assert shown == plain
        assert (response.id, list(response.raw_output_contents)) == ("7", [b""]), "W40"
    else:
        assert response["id"] == "7"
        assert response["outputs"] == [{"name": "OUTPUT0", "datatype": "FP32", "shape": [1, 4]}]


async def test_some_tensors_in_regions_and_some_not(client, memory):
    """W40, W41: raw contents of a request belong to the inputs outside, those of a response have a place for each."""
    memory.put(ROW)
    await client.call("register_system_shared_memory", "r", memory.key, 4096)
    outside = client.module.InferInput("INPUT1", [1, 4], "FP32")
    outside.set_data_from_numpy(ROW * 2)
    inputs = [there(client, "r", SIZE), outside]
    outputs = [into(client, "r", SIZE, 512), client.module.InferRequestedOutput("OUTPUT1")]
    result = await client.call("infer", "two", inputs, outputs=outputs)
    np.testing.assert_array_equal(memory.get(np.float32, [1, 4], 512), ROW)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), ROW * 2)
    # The other way round: an input in a region, every output in the response.
    result = await client.call("infer", "two", inputs[::-1])
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), ROW)


async def test_strings_in_regions(client, memory):
    words = np.array([["wide", "ü"]], dtype=object)
    data = serialize_byte_tensor(words).item()
    memory.put(np.frombuffer(data, np.uint8))
    await client.call("register_system_shared_memory", "r", memory.key, 4096)
    shape = {"shape": [1, 2], "datatype": "BYTES"}
    output = into(client, "r", 64, 1024)
    await client.call("infer", "text", [there(client, "r", len(data), **shape)], outputs=[output])
    assert memory.get(np.object_, [1, 2], 1024).tolist() == [[b"wide", "ü".encode()]]
    for byte_size, text in (
        (len(data) - 1, "incomplete string data for inference input 'INPUT0'"),
        (len(data) + 4, "unexpected number of string elements 3 for inference input 'INPUT0'"),
        (8, "expected 2 string elements for inference input 'INPUT0' for model 'text', got 1"),
    ):
        assert text in await refused(client, 400, "infer", "text", [there(client, "r", byte_size, **shape)])


async def test_a_tensor_of_some_megabytes(client):
    """It is read and written beside the other requests."""
    size = 5 << 20
    with region(2 * size) as memory:
        sent = np.arange(size, dtype=np.uint64).astype(np.uint8)
        memory.put(sent)
        await client.call("register_system_shared_memory", "r", memory.key, 2 * size)
        tensor = there(client, "r", size, shape=[size], datatype="UINT8")
        await client.call("infer", "large", [tensor], outputs=[into(client, "r", size, size)])
        np.testing.assert_array_equal(memory.get(np.uint8, [size], size), sent)


async def test_w76_windows_that_do_not_fit(client, memory):
    await client.call("register_system_shared_memory", "r", memory.key, 256)
    good = there(client, "r", SIZE)

    async def infer(code: int, tensor: Any = good, **options: Any) -> str:
        return await refused(client, code, "infer", "m", [tensor], **options)

    assert await infer(404, there(client, "nope", SIZE)) == "Unable to find shared memory region: 'nope'"
    for offset in (256, 2**63 - 1):
        invalid = "Invalid offset for shared memory region: 'r'"
        assert await infer(400, there(client, "r", SIZE, offset)) == invalid
        assert await infer(400, outputs=[into(client, "r", SIZE, offset)]) == invalid
    for byte_size, offset in ((257, 0), (SIZE, 250), (2**63 - 1, 1)):
        invalid = "Invalid offset + byte size for shared memory region: 'r'"
        assert await infer(400, there(client, "r", byte_size, offset)) == invalid
        assert await infer(400, outputs=[into(client, "r", byte_size, offset)]) == invalid
    assert await infer(500, outputs=[into(client, "r", 15)]) == (
        "shared memory size specified with the request for output 'OUTPUT0' (15 bytes) should be at least 16 bytes to "
        "hold the results"
    )
    assert await infer(400, there(client, "r", SIZE - 4)) == (
        "[request id: <id_unknown>] input byte size mismatch for input 'INPUT0' for model 'm'. Expected 16, got 12"
    )


def _window(**given: Any) -> dict[str, pb.InferParameter]:
    kinds = {name: "string_param" if isinstance(value, str) else "int64_param" for name, value in given.items()}
    return {f"shared_memory_{name}": pb.InferParameter(**{kinds[name]: value}) for name, value in given.items()}


def test_w76_parameters_of_a_grpc_tensor(server, memory):
    stub = tritonclient.grpc.InferenceServerClient(server.grpc)
    stub.register_system_shared_memory("r", memory.key, 256)

    def infer(given: dict[str, Any], wanted: dict[str, Any] | None = None) -> str:
        tensor = pb.ModelInferRequest.InferInputTensor(name="INPUT0", datatype="FP32", shape=[1, 4], parameters=given)
        output = pb.ModelInferRequest.InferRequestedOutputTensor(name="OUTPUT0", parameters=wanted or {})
        message = pb.ModelInferRequest(model_name="m", inputs=[tensor], outputs=[output])
        try:
            stub._client_stub.ModelInfer(message)
        except grpc.RpcError as error:
            return str(error.details())
        return ""

    good = _window(region="r", byte_size=SIZE)
    assert infer(good, good) == ""
    assert infer(_window(region="r")) == (
        "'shared_memory_byte_size' must be specified along with 'shared_memory_region' parameter for tensor 'INPUT0'"
    )
    for alone in ("offset", "byte_size"):
        assert infer(_window(**{alone: 4})) == (
            f"'shared_memory_{alone}' can not be specified without 'shared_memory_region' parameter for tensor 'INPUT0'"
        )
    assert infer(_window(region="r", byte_size=SIZE, offset=-1)) == "Invalid offset for shared memory region: 'r'"
    assert infer(_window(region="r", byte_size=-1)) == "Invalid offset + byte size for shared memory region: 'r'"
    assert infer(_window(region=5, byte_size=SIZE)).endswith("expected string_param.")
    classes = {**good, "classification": pb.InferParameter(int64_param=1)}
    assert infer(good, classes) == "output can't set both 'shared_memory_region' and 'classification'"
    stub.unregister_system_shared_memory()
    stub.close()


def test_w19_w76_parameters_of_an_http_tensor(server, memory):
    register = {"key": memory.key, "byte_size": 256}
    assert server.post("/v2/systemsharedmemory/region/h/register", register).status == 200
    good = {"shared_memory_region": "h", "shared_memory_byte_size": SIZE}

    def infer(given: dict[str, Any], wanted: dict[str, Any], **more: Any) -> Any:
        tensor = {"name": "INPUT0", "shape": [1, 4], "datatype": "FP32", "parameters": given, **more}
        body = {"inputs": [tensor], "outputs": [{"name": "OUTPUT0", "parameters": wanted}]}
        return server.post("/v2/models/m/infer", body)

    assert infer(good, good).json["outputs"] == [{"name": "OUTPUT0", "datatype": "FP32", "shape": [1, 4]}], "W77"
    for other in ("classification", "binary_data"):
        answer = infer(good, {**good, other: 1 if other == "classification" else True})
        assert (answer.status, answer.error) == (400, f"Output can't set both 'shared_memory_region' and '{other}'")
    assert infer(good, {**good, "binary_data": False}).status == 200
    answer = infer(good, {}, data=[1, 2, 3, 4])
    assert (answer.status, answer.error.rpartition(". ")[2]) == (400, "But set 'data' 'shared_memory_region'")
    answer = infer({"shared_memory_region": "h"}, {})
    assert (answer.status, "'shared_memory_byte_size' must be specified" in answer.error) == (400, True)
    assert server.post("/v2/systemsharedmemory/unregister").status == 200


async def test_w78_a_region_in_use_is_forgotten_at_once_and_written_still(client, memory):
    memory.put(ROW)
    await client.call("register_system_shared_memory", "r", memory.key, 4096)
    tensor, output = there(client, "r", SIZE), into(client, "r", SIZE, 512)
    running = asyncio.ensure_future(asyncio.to_thread(_infer_elsewhere, client.server, [tensor], [output], client.grpc))
    while not _queued(client.server, "gather"):
        assert not running.done(), running
        await asyncio.sleep(0)
    await client.call("unregister_system_shared_memory", "r")
    assert await status(client) == {}
    absent = await refused(client, 404, "infer", "m", [tensor])
    assert absent == "Unable to find shared memory region: 'r'"
    assert not running.done()
    others = await asyncio.to_thread(client.server.infer, "gather", *([0.0] * 4 for _ in range(7)))
    assert others.status == 200
    await running
    np.testing.assert_array_equal(memory.get(np.float32, [1, 4], 512), ROW)


def _infer_elsewhere(server: Serve, inputs: list[Any], outputs: list[Any], over_grpc: bool) -> None:
    """In a thread of its own and by a client of its own, for the first one goes on meanwhile."""
    other = Client("grpc" if over_grpc else "http", server)
    other.stock.infer("gather", inputs, outputs=outputs)
    other.stock.close()


def _queued(server: Serve, model: str) -> bool:
    return f'nv_inference_pending_request_count{{model="{model}",version="1"}} 1\n' in server.scrape()


def _hits(server: Serve) -> int:
    (row,) = server.get("/v2/models/cached/stats").json["model_stats"]
    return row["inference_stats"]["cache_hit"]["count"]


async def test_a_known_answer_is_written_to_its_region(client, memory):
    row = ROW + len(client.name) + (10 if client.grpc else 0)
    memory.put(row)
    await client.call("register_system_shared_memory", "r", memory.key, 4096)
    before = _hits(client.server)
    for _ in range(2):
        memory.put(np.zeros(4, np.float32), 512)
        tensor, output = there(client, "r", SIZE), into(client, "r", SIZE, 512)
        await client.call("infer", "cached", [tensor], outputs=[output])
        np.testing.assert_array_equal(memory.get(np.float32, [1, 4], 512), row)
    assert _hits(client.server) == before + 1
    # What counts is what lies in the region, not where.
    memory.put(row * 2)
    await client.call("infer", "cached", [there(client, "r", SIZE)], outputs=[into(client, "r", SIZE, 512)])
    np.testing.assert_array_equal(memory.get(np.float32, [1, 4], 512), row * 2)


def test_a_stream_reads_and_writes_regions(server, memory):
    memory.put(ROW)
    answers: queue.Queue[Any] = queue.Queue()
    stock = tritonclient.grpc.InferenceServerClient(server.grpc)
    stock.register_system_shared_memory("r", memory.key, 4096)
    client = Client("grpc", server)
    stock.start_stream(lambda result, error: answers.put(error or result))
    for number, (name, byte_size) in enumerate((("r", SIZE), ("nope", SIZE), ("r", 15))):
        output = into(client, name, byte_size, 512 + 64 * number)
        stock.async_stream_infer("m", [there(client, "r", SIZE)], outputs=[output], request_id=str(number))
    first, unknown, small = (answers.get(timeout=30) for _ in range(3))
    assert first.get_response().id == "0" and list(first.get_response().raw_output_contents) == [b""]
    np.testing.assert_array_equal(memory.get(np.float32, [1, 4], 512), ROW)
    assert unknown.message() == "Unable to find shared memory region: 'nope'"
    assert "should be at least 16 bytes to hold the results" in small.message()
    stock.stop_stream()
    stock.unregister_system_shared_memory()
    stock.close()
