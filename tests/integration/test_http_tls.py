"""TLS on the HTTP listener: stock clients over HTTP/1.1 and HTTP/2, and what stops the start."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import ssl
import subprocess

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio

from tests.support import certificates
from tests.support.certificates import Pair
from tests.support.server import COMMAND, Serve, until

ARRAY = np.arange(16, dtype=np.float32).reshape(1, 16)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Pair:
    return certificates.make(tmp_path_factory.mktemp("tls"), "server")


@pytest.fixture
def server(repository, start, pair) -> Serve:
    repository.identity("m")
    running = start(f"--http-tls-cert={pair.cert}", f"--http-tls-key={pair.key}")
    context = ssl.create_default_context(cafile=str(pair.cert))

    def ready() -> bool:
        connection = http.client.HTTPSConnection(running.address, timeout=30, context=context)
        with contextlib.closing(connection):
            connection.request("GET", "/v2/health/ready")
            return connection.getresponse().status == 200

    until(ready, 60, lambda: "the server was not ready")
    return running


def _input(module) -> object:
    tensor = module.InferInput("INPUT0", [1, 16], "FP32")
    tensor.set_data_from_numpy(ARRAY)
    return tensor


def test_stock_client(server, pair):
    options = {"ca_certs": str(pair.cert)}
    with triton.InferenceServerClient(f"localhost:{_port(server)}", ssl=True, ssl_options=options) as client:
        np.testing.assert_array_equal(client.infer("m", [_input(triton)]).as_numpy("OUTPUT0"), ARRAY)
    with triton.InferenceServerClient(server.address, ssl=True, insecure=True, ssl_options=options) as client:
        assert client.is_server_live()


async def test_stock_aio_client(server, pair):
    context = ssl.create_default_context(cafile=str(pair.cert))
    async with triton_aio.InferenceServerClient(server.address, ssl=True, ssl_context=context) as client:
        result = await client.infer("m", [_input(triton_aio)])
        np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), ARRAY)


def test_both_versions_are_agreed_on(server, pair):
    context = ssl.create_default_context(cafile=str(pair.cert))
    for offered, chosen in ((["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), ([], None)):
        if offered:
            context.set_alpn_protocols(offered)
        else:
            context = ssl.create_default_context(cafile=str(pair.cert))
        with socket.create_connection(("127.0.0.1", _port(server)), timeout=30) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as wrapped:
                assert wrapped.selected_alpn_protocol() == chosen
    if shutil.which("curl") is None:
        pytest.skip("needs curl; install: sudo apt-get install curl")
    url = f"https://localhost:{_port(server)}/v2/health/live"
    curl = ["curl", "-sS", "--http2", "--cacert", str(pair.cert), "-w", " %{http_version}", url]
    assert subprocess.run(curl, check=True, capture_output=True, text=True).stdout == '{"live":true} 2'


def test_what_is_no_tls_gets_nothing(server):
    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 70_000, b"\0" * 100):
        with socket.create_connection(("127.0.0.1", _port(server)), timeout=30) as client:
            client.sendall(garbage)
            got = b""
            while block := _received(client):
                got += block
            assert b"HTTP/1.1 2" not in got
    assert server.process.poll() is None


def _received(client: socket.socket) -> bytes:
    try:
        return client.recv(65536)
    except ConnectionResetError:
        return b""


def _port(server: Serve) -> int:
    return int(server.address.rsplit(":", 1)[1])


def _start(repository, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "--model-repository", str(repository.root), "--http-port=0", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_what_cannot_be_used_stops_the_start(repository, pair, tmp_path):
    cert, key, other = pair.cert, pair.key, certificates.make(tmp_path, "other").key
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("nothing here\n")
    for options, message in (
        ((f"--http-tls-cert={cert}",), "expected both or none"),
        ((f"--http-tls-cert={cert}", "--http-tls-key=/nowhere/x.key"), "TLS key '/nowhere/x.key' cannot be read"),
        ((f"--http-tls-cert={cert}", f"--http-tls-key={other}"), "does not belong to certificate"),
        ((f"--http-tls-cert={nothing}", f"--http-tls-key={key}"), "holds no certificate in PEM"),
        ((f"--http-tls-cert={cert}", f"--http-tls-key={cert}"), "holds no private key in PEM"),
    ):
        ended = _start(repository, *options)
        assert ended.returncode != 0
        assert message in ended.stderr, ended.stderr
