"""The corpus over gRPC, to Naiad and to the real Triton 2.51: every difference has its rule, or the test fails."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from tritonclient.grpc import service_pb2_grpc as stubs

from tests.support.corpus_grpc import ROW, Call, corpus, infer, tensor
from tests.support.server import Serve

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Reply:
    """The name of the status and the message, or what came back."""

    code: str
    text: str = ""
    message: Any = None


@pytest.fixture(scope="module")
def pair(both) -> Iterator[tuple[Any, Any]]:
    for server in both:
        # What was sent over HTTP may have left the real Triton at an unload, which takes it a while.
        server.until(lambda server=server: not moving(server), 60, "a model stays on its way")
    with ExitStack() as stack:
        channels = [stack.enter_context(grpc.insecure_channel(server.grpc)) for server in both]
        yield tuple(stubs.GRPCInferenceServiceStub(channel) for channel in channels)


def moving(server: Serve) -> bool:
    """Whether a model is being loaded or unloaded."""
    return any(row.get("state", "").endswith("LOADING") for row in server.post("/v2/repository/index", {}).json)


def plain(method: str, message: Any) -> Any:
    """Without what depends on the model's code, the clock or the product's name."""
    found = MessageToDict(message, preserving_proto_field_name=True)
    if method == "ServerMetadata":
        return found["extensions"]
    if method == "ModelMetadata":
        return {**found, "platform": ""}
    if method == "ModelConfig":
        own = {"backend", "instance_group", "parameters", "default_model_filename"}
        return {key: value for key, value in found["config"].items() if key not in own}
    if method == "ModelStatistics":
        return [(row["name"], row["version"], sorted(row.get("inference_stats", {}))) for row in found["model_stats"]]
    found.pop("parameters", None)
    return found


def ask(stub: Any, call: Call) -> Reply:
    try:
        return Reply("OK", message=plain(call.method, getattr(stub, call.method)(call.message, timeout=30)))
    except grpc.RpcError as refused:
        return Reply(refused.code().name, refused.details())


Predicate = Callable[[Call, Reply, Reply], bool]


def says(pattern: str, also: str = "") -> Predicate:
    return lambda call, ours, theirs: bool(re.search(pattern, ours.text) and re.search(also, theirs.text))


# What Naiad does differently, by the rule that says so. The first that fits explains.
EXPECTED: list[tuple[str, Predicate]] = [
    ("W22", says("output 'OUTPUT0' already exists in request")),
    ("W43", says("invalid value.* for '(priority|timeout)'")),
    ("W47", says(r"'1\.0' \(details: stol\)")),  # Triton reads what is a number of it
    ("W51", lambda call, ours, theirs: call.method == "ModelConfig" and ours.message.items() <= theirs.message.items()),
    ("W67", says("load parameter 'config'", "failed to poll from model repository")),
    ("W72", says("invalid model name")),
    ("W73", says("Client shared memory is disabled", "shared.memory.*region")),
    ("E-batch", says("batch-size must be <= 8", "unexpected shape")),
    ("E-byte-size", says(r"byte size mismatch.*Expected 0, got 16")),
    ("E-missing-input", says("missing required input")),
    ("E-negative-dim", says("All input dimensions should be specified")),
]


def explain(call: Call, ours: Reply, theirs: Reply) -> str | None:
    return next((rule for rule, fits in EXPECTED if fits(call, ours, theirs)), None)


def test_every_difference_over_grpc_has_its_rule(pair):
    used, unexplained = set(), []
    calls = corpus()
    for call in calls:
        ours, theirs = (ask(stub, call) for stub in pair)
        if ours == theirs:
            continue
        rule = explain(call, ours, theirs)
        if rule is None:
            unexplained.append(f"{call}\n  naiad  {str(ours)[:300]}\n  triton {str(theirs)[:300]}")
        used.add(rule)
    assert len(calls) >= 300
    assert not unexplained, f"{len(unexplained)} of {len(calls)}:\n" + "\n".join(unexplained)
    assert used == {rule for rule, _ in EXPECTED}, "a rule that explains nothing is to be taken out"


def test_a_stream_with_refusals_is_answered_alike(pair):
    """W53, W54, W56: the order, the texts, the ids and the final flag."""
    calls = [
        infer("stream", tensor(), raw=(ROW,), id="1"),
        infer("stream", tensor(), raw=(ROW,), id="2", model="nope"),
        infer("stream", tensor(shape=(4,)), raw=(ROW,), id="3"),
        infer("stream", tensor(), id="4"),
        infer("stream", tensor(datatype="INT32"), raw=(ROW,)),
        infer("stream", tensor(), raw=(ROW,), id="6", model_version="abc"),
        infer("stream", tensor(), raw=(ROW,), id="7"),
    ]
    answers = []
    for stub in pair:
        replies = stub.ModelStreamInfer(iter([call.message for call in calls]), timeout=30)
        answers.append(
            [
                (
                    reply.error_message,
                    reply.infer_response.id,
                    list(reply.infer_response.raw_output_contents),
                    reply.infer_response.parameters["triton_final_response"].bool_param,
                )
                for reply in replies
            ]
        )
    ours, theirs = answers
    assert [row[0] for row in ours] == [row[0] for row in theirs]
    assert ours == theirs
