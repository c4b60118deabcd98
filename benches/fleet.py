"""Starts the servers that the chosen scenarios need, and checks that they answer rightly."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path

from benches import models, peers, servers
from naiad import keys

ALONE = ("--model-control-mode=explicit", "--load-model=identity")
"""Options of the Naiads that are compared with one another."""


MOST_DEATHS = 10
"""Of the peer, whose workers break off now and then under gRPC."""


class Fleet:
    """Starts each server when a scenario first asks for it; all run until the end."""

    def __init__(self, tools: peers.Peers, root: Path, stack: contextlib.ExitStack) -> None:
        lenet_input = json.loads(models.REQUEST.read_bytes())["inputs"][0]["name"]
        models.write_triton(root / "triton", lenet_input=lenet_input)
        models.write_naiad(root / "naiad", lenet_input=lenet_input)
        self.running: dict[str, servers.Server] = {}
        self.left_out: dict[str, str] = {}
        self.tools, self._root, self._stack = tools, root, stack
        self._deaths = 0

    def server(self, name: str) -> servers.Server | None:
        """The running server of that name; nothing where this Naiad cannot do it, which the report says."""
        if name == "logged" and not servers.has_access_log():
            self.left_out[name] = f"left out 'logged': this Naiad has no {servers.ACCESS_LOG}"
            return None
        if name not in self.running:
            server = self._stack.enter_context(self.start(name))
            check_answers(server)
            self.running[name] = server
        return self.running[name]

    def replace(self, dead: servers.Server, where: str) -> servers.Server:
        """Another one in the place of a peer that died; a Naiad that dies ends the run."""
        if dead.name != "triton" or self._deaths >= MOST_DEATHS:
            raise servers.ServerDied(f"{dead.name} died under {where}")
        self._deaths += 1
        self.left_out[f"death {self._deaths}"] = f"triton died under {where}: started and measured anew"
        del self.running[dead.name]
        return self.server(dead.name) or dead

    def start(self, name: str) -> contextlib.AbstractContextManager[servers.Server]:
        """A server of that name, to be entered."""
        log, repository = self._root / f"{name}.log", self._root / "naiad"
        if name == "triton":
            return servers.triton(self.tools, self._root / "triton", log)
        if name == "naiad":
            return servers.naiad(repository, log)
        if name == "plain":
            return servers.naiad(repository, log, *ALONE, "--allow-metrics=false", name=name)
        watched = [*ALONE, "--metrics-config=histogram_latencies=true"]
        if name == "logged":
            watched.append(f"{servers.ACCESS_LOG}={self._root / 'access.log'}")
        return servers.naiad(repository, log, *watched, name=name, key=keys.make_key().reveal())


def check_answers(server: servers.Server) -> None:
    """Every model of a server must give the right answer before and after the load."""
    row = [float(i) / 8 for i in range(16)]
    for model, shape in (("identity", [1, 16]), ("wide", [16])):
        if model == "wide" and server.name not in ("triton", "naiad"):
            return
        body = {"inputs": [{"name": "INPUT0", "shape": shape, "datatype": "FP32", "data": row}]}
        got = server.post(f"/v2/models/{model}/infer", json.dumps(body).encode())["outputs"][0]["data"]
        if got != row:
            raise RuntimeError(f"{server.name}: {model} answered {got}, expected {row}")
    scores = server.post("/v2/models/lenet/infer", models.REQUEST.read_bytes())["outputs"][0]["data"]
    if len(scores) != 10 or not all(math.isfinite(s) for s in scores):
        raise RuntimeError(f"{server.name}: lenet answered {scores}, expected ten finite scores")
