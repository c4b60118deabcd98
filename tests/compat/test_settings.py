"""W50, W79, W80: trace and log settings through the stock clients."""

from __future__ import annotations

from typing import Any

import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton
from google.protobuf.message import Message
from tritonclient.utils import InferenceServerException

FILE = "/dev/null"
DEFAULTS = {
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_file": FILE,
    "trace_mode": "triton",
}


@pytest.fixture
def server(repository, start):
    """Where traces have no file a level is refused."""
    repository.identity()
    return start(f"--trace-config=triton,file={FILE}").wait_ready()


@pytest.fixture
def client(server):
    with triton.InferenceServerClient(server.address) as client:
        yield client


def trace_values(answer: Message) -> dict[str, Any]:
    """As HTTP shows them; a list but for the level holds one value."""
    values = {name: list(setting.value) for name, setting in answer.settings.items()}
    return {name: value if name == "trace_level" else value[0] for name, value in values.items()}


def log_values(answer: Message) -> dict[str, tuple[str, Any]]:
    """Each with the type that it came in."""
    kinds = {name: setting.WhichOneof("parameter_choice") for name, setting in answer.settings.items()}
    return {name: (kind, getattr(answer.settings[name], kind)) for name, kind in kinds.items()}


def test_w79_trace_settings(client):
    assert client.get_trace_settings() == DEFAULTS
    changed = client.update_trace_settings("identity", {"trace_rate": "1", "trace_level": ["TIMESTAMPS", "TENSORS"]})
    assert changed == DEFAULTS | {"trace_rate": "1", "trace_level": ["TIMESTAMPS", "TENSORS"]}
    assert client.get_trace_settings("identity") == changed
    assert client.get_trace_settings() == DEFAULTS
    cleared = client.update_trace_settings("identity", {"trace_rate": None, "trace_level": None})
    assert cleared == DEFAULTS
    with pytest.raises(InferenceServerException, match="trace file location can not be updated"):
        client.update_trace_settings(settings={"trace_file": "/tmp/x"})
    with pytest.raises(InferenceServerException, match="Request for unknown model : nope"):
        client.get_trace_settings("nope")


def test_w79_a_level_without_a_file_is_refused(repository, start):
    """All of the changes or none: the rate stays, too."""
    repository.identity()
    server = start().wait_ready()
    refusal = "Attempting to set invalid trace setting :trace file name is not given"
    changes = {"trace_level": ["TIMESTAMPS"], "trace_rate": "7"}
    unchanged = DEFAULTS | {"trace_file": ""}
    with triton.InferenceServerClient(server.address) as client:
        for model in (None, "identity"):
            with pytest.raises(InferenceServerException, match=refusal):
                client.update_trace_settings(model, changes)
        assert client.update_trace_settings(settings={"trace_level": "OFF"}) == unchanged
        assert client.get_trace_settings("identity") == unchanged
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        with pytest.raises(InferenceServerException, match=refusal) as raised:
            client.update_trace_settings("identity", changes)
        assert raised.value.status() == "StatusCode.INVALID_ARGUMENT"


def test_w80_log_settings(client):
    before = client.get_log_settings()
    assert set(before) == {"log_file", "log_info", "log_warning", "log_error", "log_verbose_level", "log_format"}
    after = client.update_log_settings({"log_verbose_level": 1, "log_info": False, "log_format": "ISO8601"})
    assert after == before | {"log_verbose_level": 1, "log_info": False, "log_format": "ISO8601"}
    assert client.get_log_settings() == after
    with pytest.raises(InferenceServerException, match="log file location can not be updated"):
        client.update_log_settings({"log_file": "/tmp/x"})
    with pytest.raises(InferenceServerException, match="invalid argument for --log_format, got: x"):
        client.update_log_settings({"log_format": "x"})
    assert client.get_log_settings() == after


def test_w50_trace_settings_over_grpc(server):
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        assert trace_values(client.get_trace_settings()) == DEFAULTS
        changes = {"trace_rate": "1", "trace_level": ["TIMESTAMPS", "TENSORS"]}
        changed = trace_values(client.update_trace_settings("identity", changes))
        assert changed == DEFAULTS | changes
        assert trace_values(client.get_trace_settings("identity")) == changed
        assert trace_values(client.get_trace_settings()) == DEFAULTS
        cleared = client.update_trace_settings("identity", dict.fromkeys(changes))
        assert trace_values(cleared) == DEFAULTS
        for settings, status, text in (
            ({"trace_file": "/tmp/x"}, "UNIMPLEMENTED", "trace file location can not be updated"),
            ({"trace_mode": "opentelemetry"}, "UNIMPLEMENTED", "trace mode can not be updated"),
            ({"trace_rate": "abc", "trace_count": "5"}, "INVALID_ARGUMENT", "Unable to parse 'trace_rate', got: abc"),
            ({"trace_level": ["OFF", "TENSORS"]}, "INVALID_ARGUMENT", "Unable to parse 'trace_level'"),
        ):
            with pytest.raises(InferenceServerException, match=text) as raised:
                client.update_trace_settings(settings=settings)
            assert raised.value.status() == f"StatusCode.{status}"
        assert trace_values(client.get_trace_settings()) == DEFAULTS, "all of the changes or none"
        with pytest.raises(InferenceServerException, match="Request for unknown model : nope"):
            client.get_trace_settings("nope")


def test_w50_log_settings_over_grpc(server):
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        before = log_values(client.get_log_settings())
        assert {name: kind for name, (kind, _) in before.items()} == {
            "log_file": "string_param",
            "log_info": "bool_param",
            "log_warning": "bool_param",
            "log_error": "bool_param",
            "log_verbose_level": "uint32_param",
            "log_format": "string_param",
        }
        changed = client.update_log_settings({"log_verbose_level": 1, "log_info": False, "log_format": "ISO8601"})
        after = log_values(changed)
        assert after == before | {
            "log_verbose_level": ("uint32_param", 1),
            "log_info": ("bool_param", False),
            "log_format": ("string_param", "ISO8601"),
        }
        assert log_values(client.get_log_settings()) == after
        for settings, status, text in (
            ({"log_file": "/tmp/x"}, "UNIMPLEMENTED", "log file location can not be updated"),
            ({"log_format": "x"}, "INVALID_ARGUMENT", "invalid argument for --log_format, got: x"),
            ({"log_nope": True, "log_info": True}, "INVALID_ARGUMENT", "unknown log setting 'log_nope'"),
        ):
            with pytest.raises(InferenceServerException, match=text) as raised:
                client.update_log_settings(settings)
            assert raised.value.status() == f"StatusCode.{status}"
        assert log_values(client.get_log_settings()) == after, "all of the changes or none"


def test_w50_a_log_value_of_another_type_is_refused(server):
    """The stock client always picks the right one, so its message is made here."""
    with triton_grpc.InferenceServerClient(server.grpc) as client:
        for name, value, expected in (
            ("log_info", {"string_param": "true"}, "bool_param"),
            ("log_verbose_level", {"bool_param": True}, "uint32_param"),
            ("log_format", {"uint32_param": 1}, "string_param"),
        ):
            request = triton_grpc.service_pb2.LogSettingsRequest(settings={name: value})
            with pytest.raises(Exception, match=f"Invalid value for '{name}': expected {expected}"):
                client._client_stub.LogSettings(request)


async def test_w50_both_settings_from_asyncio(server):
    async with triton_grpc_aio.InferenceServerClient(server.grpc) as client:
        changed = await client.update_trace_settings(settings={"trace_count": "7"})
        assert trace_values(changed) == DEFAULTS | {"trace_count": "7"}
        assert trace_values(await client.get_trace_settings()) == trace_values(changed)
        changed = await client.update_log_settings({"log_warning": False})
        assert log_values(changed)["log_warning"] == ("bool_param", False)
        assert log_values(await client.get_log_settings()) == log_values(changed)
