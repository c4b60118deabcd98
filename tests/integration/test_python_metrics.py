"""Metrics that Python models make: from the model's code to a scrape, through crashes, reloads and unloads."""

from __future__ import annotations

import os
import signal
import textwrap

from prometheus_client.parser import text_string_to_metric_families

from tests.support.server import Serve, alive

EXPLICIT = "--model-control-mode=explicit"
CONFIG = """backend: "python" max_batch_size: 0
input { name: "IN" data_type: TYPE_FP32 dims: [ 1 ] }
output { name: "PID" data_type: TYPE_INT64 dims: [ 1 ] }
"""
COUNTING = """
def initialize(self, args):
    self.name = args["model_name"]
    self.counter = self.made("runs", "COUNTER").Metric(labels={"by": 'a "b"\\\\\\n'})
    self.gauge = self.made("level", "GAUGE").Metric()

def made(self, name, kind):
    return pb_utils.MetricFamily(name=name, description="of\\ntests", kind=getattr(pb_utils.MetricFamily, kind))

def execute(self, requests):
    value = float(pb_utils.get_input_tensor_by_name(requests[0], "IN").as_numpy()[0])
    self.counter.increment(1)
    self.gauge.set(value)
    pid = np.array([__import__("os").getpid()], dtype=np.int64)
    return [pb_utils.InferenceResponse([pb_utils.Tensor("PID", pid)]) for request in requests]
"""


def run(server: Serve, model: str, value: float = 0) -> int:
    """The pid of the worker that answered."""
    tensor = {"name": "IN", "shape": [1], "datatype": "FP32", "data": [value]}
    answer = server.post(f"/v2/models/{model}/infer", {"inputs": [tensor]})
    assert answer.status == 200, answer
    return answer.json["outputs"][0]["data"][0]


def shown(server: Serve, name: str) -> list[tuple[dict[str, str], float]]:
    """The samples of a name, as the stock parser reads them."""
    families = text_string_to_metric_families(server.scrape())
    return [(row.labels, row.value) for family in families for row in family.samples if row.name == name]


def await_shown(server: Serve, name: str, *values: float) -> None:
    def there() -> bool:
        return [value for _, value in shown(server, name)] == list(values)

    server.until(there, 10, f"'{name}' is not {values}: {shown(server, name)}")


def test_a_counter_does_not_fall_when_its_worker_is_lost(repository, start):
    repository.python("m", COUNTING, config=CONFIG)
    server = start(EXPLICIT, "--load-model=m").wait_ready()
    await_shown(server, "runs_total", 0)
    worker = run(server, "m", 7.5)
    run(server, "m", 2.5)
    await_shown(server, "runs_total", 2)
    assert shown(server, "runs_total") == [({"by": 'a "b"\\\n'}, 2)]
    await_shown(server, "level", 2.5)
    os.kill(worker, signal.SIGKILL)
    server.until(lambda: not alive(worker), 10, "the worker lives")
    assert run(server, "m", 4) != worker
    await_shown(server, "runs_total", 3)
    await_shown(server, "level", 4)
    assert server.post("/v2/repository/models/m/unload").status == 200
    assert shown(server, "runs_total") == shown(server, "level") == []
    # As after a restart.
    assert server.post("/v2/repository/models/m/load").status == 200
    await_shown(server, "runs_total", 0)


def test_instances_and_models_share_a_metric_of_one_name_and_labels(repository, start):
    for name in ("m", "n"):
        repository.python(name, COUNTING, config=CONFIG + "instance_group { count: 2 kind: KIND_CPU }")
    server = start(EXPLICIT, "--load-model=m", "--load-model=n").wait_ready()
    for number in range(10):
        run(server, "mn"[number % 2], number)
    await_shown(server, "runs_total", 10)
    await_shown(server, "level", 9)
    assert server.post("/v2/repository/models/n/unload").status == 200
    await_shown(server, "runs_total", 5)


def test_a_family_of_another_kind_is_left_out_and_told_of(repository, start):
    repository.python("a", COUNTING, config=CONFIG)
    repository.python("b", COUNTING.replace('"runs", "COUNTER"', '"runs", "GAUGE"'), config=CONFIG)
    server = start().wait_ready()
    run(server, "a")
    run(server, "b")
    await_shown(server, "runs_total", 1)
    told = "metrics of the model are left out of the scrape: 'runs' and 'runs' of another model cannot both be shown"
    server.until(lambda: told in server.log.read_text(), 10, "nobody is told")
    (record,) = [record for record in server.records() if record["message"] == told]
    assert (record["level"], record["model"], record["version"]) == ("warning", "b", 1)


REFUSED = """
def initialize(self, args):
    said = []
    for name in ("nv_inference_count", "naiad_workers", "a b", "", "é"):
        try:
            pb_utils.MetricFamily(name=name, description="d", kind=pb_utils.MetricFamily.COUNTER)
        except pb_utils.TritonModelException as error:
            said.append(str(error))
    made = 0
    family = pb_utils.MetricFamily(name="many", description="d", kind=pb_utils.MetricFamily.COUNTER)
    try:
        while True:
            family.Metric(labels={"n": str(made)}).increment(1)
            made += 1
    except pb_utils.TritonModelException as error:
        said += [str(error), str(made)]
    raise RuntimeError(" | ".join(said))
"""


def test_what_cannot_be_scraped_is_refused_in_the_model(repository, start):
    repository.python("m", REFUSED + "\ndef execute(self, requests):\n    pass\n", config=CONFIG)
    server = start(EXPLICIT).wait_ready()
    refused = server.post("/v2/repository/models/m/load").error
    own = "names that begin with 'nv_' or 'naiad_' are the server's own"
    letters = "expected a name of letters, digits, '_' and ':'"
    for text in (
        f"metric 'nv_inference_count': {own} | metric 'naiad_workers': {own}",
        f"metric 'a b': {letters} | metric '': {letters} | metric 'é': {letters}",
        "metric 'many': a model may have 4096 metrics | 4096",
    ):
        assert text in refused


def test_many_metrics_arrive_whole_and_no_line_breaks_the_channel(repository, start):
    body = """
    def execute(self, requests):
        family = pb_utils.MetricFamily(name="many", description="d", kind=pb_utils.MetricFamily.GAUGE)
        for number in range(2000):
            family.Metric(labels={"n": str(number), "x": "\\u20ac" * 600}).set(number)
        pid = np.array([1], dtype=np.int64)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("PID", pid)]) for request in requests]
    """
    repository.python("m", textwrap.dedent(body), config=CONFIG)
    server = start().wait_ready()
    run(server, "m")
    server.until(lambda: len(shown(server, "many")) == 2000, 30, "some are missing")
    assert sum(value for _, value in shown(server, "many")) == sum(range(2000))
