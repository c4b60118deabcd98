"""TLS and mutual TLS on the gRPC listener, with the stock client; Triton's options."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.support import certificates
from tests.support.certificates import Pair
from tests.support.server import COMMAND

ARRAY = np.arange(16, dtype=np.float32).reshape(1, 16)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Pair:
    return certificates.make(tmp_path_factory.mktemp("tls"), "server")


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Pair:
    return certificates.make(tmp_path_factory.mktemp("authority"), "authority", authority=True)


@pytest.fixture(scope="module")
def mine(tmp_path_factory, authority) -> Pair:
    return certificates.make(tmp_path_factory.mktemp("client"), "client", signer=authority)


def _port(server) -> str:
    return server.grpc.rsplit(":", 1)[1]


def _infer(client) -> np.ndarray:
    tensor = triton.InferInput("INPUT0", [1, 16], "FP32")
    tensor.set_data_from_numpy(ARRAY)
    return client.infer("m", [tensor], client_timeout=30).as_numpy("OUTPUT0")


def _options(pair: Pair) -> list[str]:
    return [f"--grpc-server-cert={pair.cert}", f"--grpc-server-key={pair.key}"]


def test_the_stock_client_over_tls(repository, start, pair):
    repository.identity("m")
    server = start("--grpc-use-ssl=true", *_options(pair)).wait_ready()
    address = f"localhost:{_port(server)}"
    with triton.InferenceServerClient(address, ssl=True, root_certificates=str(pair.cert)) as client:
        np.testing.assert_array_equal(_infer(client), ARRAY)
    with triton.InferenceServerClient(address) as plain, pytest.raises(InferenceServerException):
        plain.is_server_live(client_timeout=10)


def test_mutual_tls_asks_for_a_certificate(repository, start, pair, authority, mine):
    repository.identity("m")
    server = start("--grpc-use-ssl-mutual=true", f"--grpc-root-cert={authority.cert}", *_options(pair)).wait_ready()
    address = f"localhost:{_port(server)}"
    known = {"private_key": str(mine.key), "certificate_chain": str(mine.cert)}
    stranger = {"private_key": str(pair.key), "certificate_chain": str(pair.cert)}
    roots = {"ssl": True, "root_certificates": str(pair.cert)}
    with triton.InferenceServerClient(address, **roots, **known) as client:
        np.testing.assert_array_equal(_infer(client), ARRAY)
    for other in ({}, stranger):
        with triton.InferenceServerClient(address, **roots, **other) as client:
            with pytest.raises(InferenceServerException):
                client.is_server_live(client_timeout=10)


def test_what_cannot_be_meant_stops_the_start(repository, pair):
    for options, message in (
        (["--grpc-use-ssl=true"], "expected --grpc-server-cert and --grpc-server-key"),
        (["--grpc-use-ssl-mutual=true", *_options(pair)], "expected --grpc-root-cert"),
        (_options(pair), "work with --grpc-use-ssl only"),
        (["--grpc-use-ssl=true", f"--grpc-server-cert={pair.key}", f"--grpc-server-key={pair.key}"], "no certificate"),
    ):
        command = [
            *COMMAND,
            "--model-repository",
            str(repository.root),
            "--http-port=0",
            "--grpc-port=0",
            "--metrics-port=0",
            *options,
        ]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode != 0
        assert message in ended.stderr, ended.stderr
