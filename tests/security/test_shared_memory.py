"""E1-E3: what a client may do with shared memory, and that it cannot harm the server with it."""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc.aio
import tritonclient.http.aio
from tritonclient.utils import InferenceServerException

from tests.support.regions import Region, region
from tests.support.repository import Repository
from tests.support.server import Serve, descendants, serve

ROW = [0.0] * 16
SIZE = 64
REQUESTS = 1000
DISABLED = "Client shared memory is disabled. Start the server with '--allow-client-shm=true' to enable."
ABSENT = "Unable to find shared memory region: 'r'"
# Two models, for a batch has 512 requests at most: one is asked over HTTP and one over gRPC.
GATHERING = ("gather-0", "gather-1")
# A request waits there until there is one more than all that a test sends.
BATCH = REQUESTS // len(GATHERING) + 1
GATHER = f"dynamic_batching {{ preferred_batch_size: [ {BATCH} ] max_queue_delay_microseconds: 60000000 }}"


@pytest.fixture(scope="module")
def server(module_repository: Repository, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    module_repository.identity("m")
    for name in GATHERING:
        module_repository.identity(name, max_batch=BATCH, extra=GATHER)
    log = tmp_path_factory.mktemp("log") / "serve.log"
    with serve(module_repository.root, log, "--allow-client-shm=true") as running:
        pid = running.wait_ready().pid
        yield running
        assert running.process.poll() is None and running.pid == pid, "the server died"
        assert running.infer("m", ROW).status == 200


@pytest.fixture(autouse=True)
def forgotten(server: Serve) -> Iterator[None]:
    yield
    assert server.post("/v2/systemsharedmemory/unregister").status == 200


@pytest.fixture
def memory() -> Iterator[Region]:
    with region(REQUESTS * SIZE) as made:
        yield made


def register(server: Serve, key: str, byte_size: int, offset: int = 0, name: str = "r") -> tuple[int, str]:
    body = {"key": key, "offset": offset, "byte_size": byte_size}
    answer = server.post(f"/v2/systemsharedmemory/region/{name}/register", body)
    return answer.status, "" if answer.status == 200 else answer.error


def infer(server: Serve, wanted: bool = False, **window: Any) -> tuple[int, str]:
    """One row whose input or output lies in a region."""
    place = {"shared_memory_region": "r", "shared_memory_byte_size": SIZE, **window}
    tensor = {"name": "INPUT0", "shape": [1, 16], "datatype": "FP32"}
    tensor |= {"data": ROW} if wanted else {"parameters": place}
    body: dict[str, Any] = {"inputs": [tensor]}
    if wanted:
        body["outputs"] = [{"name": "OUTPUT0", "parameters": place}]
    answer = server.post("/v2/models/m/infer", body)
    return answer.status, "" if answer.status == 200 else answer.error


def opened(pid: int) -> list[str]:
    """What a process has open or mapped that has a name in shared memory."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(link))
        except FileNotFoundError:
            continue  # closed meanwhile
    maps = Path(f"/proc/{pid}/maps").read_text()
    return [name for name in [*found, *re.findall(r"/dev/shm/.*", maps)] if name.startswith("/dev/shm/")]


def test_e2_off_without_the_option(repository, start, memory):
    repository.identity("m")
    off = start().wait_ready()
    assert register(off, memory.key, SIZE) == (501, DISABLED)
    assert infer(off) == infer(off, wanted=True) == (501, DISABLED)
    assert off.post("/v2/systemsharedmemory/unregister").status == 501
    assert off.get("/v2/systemsharedmemory/status").json == []


def test_e1_no_memory_of_the_servers_has_a_name(server, memory):
    processes = [server.pid, *descendants(server.pid)]
    assert len(processes) > 2, "the server has workers"
    assert [opened(pid) for pid in processes] == [[]] * len(processes)
    assert register(server, memory.key, SIZE)[0] == 200
    assert opened(server.pid) == [str(memory.path)], "open, and not mapped"
    assert infer(server) == (200, "")
    assert not any(opened(pid) for pid in descendants(server.pid)), "workers do not get it"
    for process in processes:
        for number in range(32):
            for key in (f"/proc/{process}/fd/{number}", f"../../proc/{process}/fd/{number}"):
                assert register(server, key, 1, name="s")[0] == 400


def test_e2_numbers_that_overflow(server, memory):
    assert register(server, memory.key, SIZE, 2**63 - 1)[0] == 400
    assert register(server, memory.key, 2**64 - 1, 1)[0] == 400
    assert register(server, memory.key, 2**64 - 1)[0] == 400
    assert register(server, memory.key, 2 * SIZE, SIZE)[0] == 200
    for wanted in (False, True):
        for number in (2**63 - 1, 2**63, 2**64 - 1, 2**64 - SIZE):
            refused = (400, "Invalid offset for shared memory region: 'r'")
            assert infer(server, wanted, shared_memory_offset=number) == refused
            refused = (400, "Invalid offset + byte size for shared memory region: 'r'")
            assert infer(server, wanted, shared_memory_byte_size=number) == refused
            assert infer(server, wanted, shared_memory_byte_size=number, shared_memory_offset=SIZE) == refused
        for number in (2**64, -1, 1.5, "0", True, None):
            assert infer(server, wanted, shared_memory_offset=number)[0] == 400


def test_e2_what_lies_elsewhere_is_not_opened(server, memory, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(SIZE))
    others = [Path("/dev/shm") / f"{memory.key[1:]}-{kind}" for kind in ("link", "inner", "pipe", "folder")]
    link, inner, pipe, folder = others
    link.symlink_to(secret)
    inner.symlink_to(memory.path)
    os.mkfifo(pipe)
    folder.mkdir()
    (folder / "inside").write_bytes(bytes(SIZE))
    try:
        for path in others:
            key = f"/{path.name}"
            assert register(server, key, SIZE) == (500, f"Unable to open shared memory region: '{key}'")
        for key in (str(secret), f"..{secret}", f"/{folder.name}/inside", "..", "/../../etc/passwd", "a\0b", ""):
            assert register(server, key, 1)[0] == 400, key
        assert register(server, "/.", 1)[0] == 500
        assert register(server, "k" * 300, 1)[0] == 500
    finally:
        (folder / "inside").unlink()
        folder.rmdir()
        for path in (link, inner, pipe):
            path.unlink()
    assert server.get("/v2/systemsharedmemory/status").json == []


def test_e2_a_file_that_shrinks_is_an_error_and_ends_nothing(server, memory):
    assert register(server, memory.key, REQUESTS * SIZE)[0] == 200
    assert infer(server, shared_memory_offset=8192) == infer(server, True, shared_memory_offset=8192) == (200, "")
    os.truncate(memory.path, 4096)
    short = (400, "shared memory region 'r' is shorter than it was when it was registered")
    for wanted in (False, True):
        assert infer(server, wanted, shared_memory_offset=8192) == short
        assert infer(server, wanted, shared_memory_offset=4096 - SIZE // 2) == short
        assert infer(server, wanted) == (200, "")
    assert memory.path.stat().st_size == 4096, "an output does not make it grow"
    os.truncate(memory.path, 0)
    assert infer(server) == infer(server, wanted=True) == short
    memory.path.unlink()
    assert infer(server) == short
    memory.path.touch()  # the fixture takes it away


def test_e2_no_request_gets_more_than_the_budget(repository, start, tmp_path):
    """A file of holes costs its maker nothing; a request for it is refused before there is memory for it."""
    repository.identity("large", datatype="UINT8", dims="-1", max_batch=0)
    server = start("--allow-client-shm=true", "--byte-budget=16777216").wait_ready()
    size = 1 << 30
    with region(SIZE) as memory:
        os.truncate(memory.path, size)
        assert register(server, memory.key, size)[0] == 200
        place = {"shared_memory_region": "r", "shared_memory_byte_size": size}
        tensor = {"name": "INPUT0", "shape": [size], "datatype": "UINT8", "parameters": place}
        answer = server.post("/v2/models/large/infer", {"inputs": [tensor]})
        assert answer.status == 503 and "exceeds the byte budget" in answer.error
        assert "VmHWM" in (status := Path(f"/proc/{server.pid}/status").read_text())
        assert int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) << 10 < size


class Senders:
    """Connections enough for a thousand requests at a time, half of them over each protocol."""

    def __init__(self, server: Serve) -> None:
        own = [("grpc.use_local_subchannel_pool", 1)]
        grpc = tritonclient.grpc.aio
        self.grpc = [grpc.InferenceServerClient(server.grpc, channel_args=own) for _ in range(10)]
        self.http = tritonclient.http.aio.InferenceServerClient(server.address, conn_limit=REQUESTS, conn_timeout=120)

    async def infer(self, model: str, number: int) -> str:
        """The text of the refusal; none = it went well. Input and output have the same place."""
        over_grpc = number % 2
        module: Any = tritonclient.grpc.aio if over_grpc else tritonclient.http.aio
        client: Any = self.grpc[number // 2 % len(self.grpc)] if over_grpc else self.http
        tensor, output = module.InferInput("INPUT0", [1, 16], "FP32"), module.InferRequestedOutput("OUTPUT0")
        tensor.set_shared_memory("r", SIZE, number * SIZE)
        output.set_shared_memory("r", SIZE, number * SIZE)
        try:
            await client.infer(model, [tensor], outputs=[output])
        except InferenceServerException as error:
            return error.message()
        return ""

    async def close(self) -> None:
        for client in (*self.grpc, self.http):
            await client.close()


def pending(server: Serve) -> int:
    rows = re.findall(r'nv_inference_pending_request_count{model="gather-.",version="1"} (\d+)', server.scrape())
    return sum(map(int, rows))


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


async def _unregister_while_all_wait(server: Serve, memory: Region) -> None:
    rows = np.arange(REQUESTS * 16, dtype=np.float32)
    memory.put(rows)
    assert register(server, memory.key, REQUESTS * SIZE)[0] == 200
    senders = Senders(server)
    running = [asyncio.ensure_future(senders.infer(GATHERING[number % 2], number)) for number in range(REQUESTS)]
    while await asyncio.to_thread(pending, server) < REQUESTS:
        assert not any(one.done() for one in running), [one.result() for one in running if one.done()][:3]
    memory.clear()
    answer = await asyncio.to_thread(server.post, "/v2/systemsharedmemory/unregister")
    assert (answer.status, server.get("/v2/systemsharedmemory/status").json) == (200, [])
    assert str(memory.path) in opened(server.pid), "in use still"
    assert infer(server) == (404, ABSENT)
    for name in GATHERING:
        assert (await asyncio.to_thread(server.infer, name, ROW)).status == 200
    assert set(await asyncio.gather(*running)) == {""}
    np.testing.assert_array_equal(memory.get(np.float32, [REQUESTS * 16]), rows)
    await senders.close()


async def _unregister_while_all_come(server: Serve, memory: Region) -> None:
    senders = Senders(server)
    running = asyncio.gather(*(senders.infer("m", number) for number in range(REQUESTS)))
    while not running.done():
        await asyncio.to_thread(register, server, memory.key, REQUESTS * SIZE)
        await asyncio.to_thread(server.post, "/v2/systemsharedmemory/region/r/unregister")
    told = Counter(await running)
    assert set(told) <= {"", ABSENT}, told
    await senders.close()


async def test_e3_unregister_under_a_thousand_requests(server, memory):
    await _unregister_while_all_wait(server, memory)
    await _unregister_while_all_come(server, memory)
    bytes_before, open_before = resident(server.pid), descriptors(server.pid)
    for _ in range(3):
        await _unregister_while_all_wait(server, memory)
        await _unregister_while_all_come(server, memory)
    server.post("/v2/systemsharedmemory/unregister")
    assert opened(server.pid) == []
    server.until(lambda: descriptors(server.pid) <= open_before, 30, "descriptors are left")
    assert "\nnaiad_request_bytes 0\n" in server.scrape()
    grown = resident(server.pid) - bytes_before
    assert grown < 16 << 20, f"{grown} bytes more after three more rounds"
