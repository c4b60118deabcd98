"""W79, W80: trace and log settings through the stock HTTP client."""

from __future__ import annotations

import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

DEFAULTS = {
    "trace_level": ["OFF"],
    "trace_rate": "1000",
    "trace_count": "-1",
    "log_frequency": "0",
    "trace_file": "",
    "trace_mode": "triton",
}


@pytest.fixture
def client(repository, start):
    repository.identity()
    with triton.InferenceServerClient(start().wait_ready().address) as client:
        yield client


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
