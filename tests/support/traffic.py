"""Steady traffic from a process of its own: so many requests a second over several kept connections.

Run by hand against a server for a longer run, with reloads beside it:

    python -m tests.support.traffic 127.0.0.1:8000 --model m --rate 500 --seconds 600 --reload-every 1
"""

from __future__ import annotations

import argparse
import http.client
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from tritonclient.utils import InferenceServerException

BODY = json.dumps({"inputs": [{"name": "INPUT0", "shape": [1, 16], "datatype": "FP32", "data": [0.5] * 16}]}).encode()
AWAY = (ConnectionError, http.client.RemoteDisconnected, http.client.BadStatusLine)


@dataclass
class Outcome:
    """What the clients saw."""

    statuses: Counter[str] = field(default_factory=Counter)
    moved: int = 0
    """Requests that another server answered, because a connection ended or was refused."""
    slowest: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def document(self) -> str:
        return json.dumps({"statuses": self.statuses, "moved": self.moved, "slowest_secs": round(self.slowest, 4)})


class Client:
    """One kept connection that goes to the next server where one is gone, as a load balancer would."""

    def __init__(self, addresses: Sequence[str], model: str, outcome: Outcome) -> None:
        self._addresses = list(addresses)
        self._model = model
        self._outcome = outcome
        self._connect(self._addresses[0])

    def ask(self) -> None:
        begin = time.monotonic()
        status, moved = self._answer()
        took = time.monotonic() - begin
        with self._outcome.lock:
            self._outcome.statuses[status] += 1
            self._outcome.moved += moved
            self._outcome.slowest = max(self._outcome.slowest, took)

    def _answer(self) -> tuple[str, int]:
        answer, is_gone = self._send()
        moved = 0
        while is_gone and moved < 2 * len(self._addresses) and len(self._addresses) > 1:
            self._close()
            self._addresses.append(self._addresses.pop(0))  # what went away is asked last
            self._connect(self._addresses[0])
            moved += 1
            answer, is_gone = self._send()
        return answer, moved

    def _connect(self, address: str) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError

    def _send(self) -> tuple[str, bool]:
        """What came back, and whether the server is going away."""
        raise NotImplementedError


class HttpClient(Client):
    """HTTP/1.1 with keep-alive."""

    def _connect(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(address, timeout=30)

    def _close(self) -> None:
        self._connection.close()

    def _send(self) -> tuple[str, bool]:
        try:
            self._connection.request("POST", f"/v2/models/{self._model}/infer", BODY)
            answer = self._connection.getresponse()
            text = answer.read().decode()
        except AWAY as error:
            return repr(error), True
        return ("200", False) if answer.status == 200 else (f"{answer.status} {text}", answer.status == 503)


class GrpcClient(Client):
    """The stock client's channel."""

    def _connect(self, address: str) -> None:
        import tritonclient.grpc as triton

        own = [("grpc.use_local_subchannel_pool", 1)]  # else equal channels share one connection
        self._client = triton.InferenceServerClient(address, channel_args=own)
        self._input = triton.InferInput("INPUT0", [1, 16], "FP32")
        self._input.set_data_from_numpy(np.full((1, 16), 0.5, np.float32))

    def _close(self) -> None:
        self._client.close()

    def _send(self) -> tuple[str, bool]:
        try:
            self._client.infer(self._model, [self._input])
        except InferenceServerException as error:
            return str(error), error.status() == "StatusCode.UNAVAILABLE"
        return "200", False


def drive(make: Callable[[Outcome], Client], *, rate: float, clients: int, stop: threading.Event) -> Outcome:
    """Sends until `stop`; each client keeps its own pace."""
    outcome = Outcome()

    def run(number: int) -> None:
        client = make(outcome)
        due = time.monotonic() + number / rate
        while not stop.wait(max(0.0, due - time.monotonic())):
            client.ask()
            due += clients / rate

    threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcome


KINDS: dict[str, type[Client]] = {"http": HttpClient, "grpc": GrpcClient}


class Traffic:
    """The same in another process, so that it has its own interpreter; it stops with its standard input."""

    def __init__(self, *addresses: str, model: str, rate: float, clients: int, kind: str = "http") -> None:
        command = [sys.executable, "-m", "tests.support.traffic", *addresses, "--model", model, "--kind", kind]
        command += ["--rate", str(rate), "--clients", str(clients), "--until-stdin-ends"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._line("first")

    def _line(self, wanted: str) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the client ended with {self._process.wait()} before it said '{wanted}'"
        return line

    def finish(self) -> dict:
        """Ends it; what it saw."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        document = json.loads(self._line("the outcome"))
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait(30)
        return document


def _reload(address: str, model: str, every: float, stop: threading.Event) -> int:
    reloads = 0
    while not stop.wait(every):
        connection = http.client.HTTPConnection(address, timeout=60)
        connection.request("POST", f"/v2/repository/models/{model}/load")
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        connection.close()
        reloads += 1
    return reloads


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.support.traffic", description=__doc__)
    parser.add_argument("addresses", nargs="+", metavar="HOST:PORT")
    parser.add_argument("--model", required=True)
    parser.add_argument("--kind", choices=KINDS, default="http")
    parser.add_argument("--rate", type=float, default=500.0, help="requests a second over all connections")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--reload-every", type=float, default=0.0, help="seconds between two reloads; 0 = none")
    parser.add_argument("--reload-at", metavar="HOST:PORT", help="where HTTP listens, if that is not the first address")
    parser.add_argument("--until-stdin-ends", action="store_true")
    options = parser.parse_args()
    stop = threading.Event()

    def wait() -> None:
        if options.until_stdin_ends:
            print("{}", flush=True)
            sys.stdin.read()
        elif options.reload_every:
            end = threading.Timer(options.seconds, stop.set)
            end.start()
            reloads = _reload(options.reload_at or options.addresses[0], options.model, options.reload_every, stop)
            print(f"{reloads} reloads", file=sys.stderr)
        else:
            stop.wait(options.seconds)
        stop.set()

    threading.Thread(target=wait).start()
    make = partial(KINDS[options.kind], options.addresses, options.model)
    outcome = drive(make, rate=options.rate, clients=options.clients, stop=stop)
    print(outcome.document(), flush=True)
    return 0 if set(outcome.statuses) == {"200"} else 1


if __name__ == "__main__":
    sys.exit(main())
