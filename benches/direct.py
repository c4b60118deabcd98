"""Measures the model's own cost: the CPU time of a direct torch call, by batch size, in a process of its own.

Run as a script it prints a JSON object {batch size: CPU seconds a call}.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from pathlib import Path

from benches.peers import Peers, triton_environment

SIZES = (1, 2, 4, 8, 16, 32)


def cost(peers: Peers, model: Path) -> dict[int, float]:
    """CPU seconds of one call at each of `SIZES`, one thread."""
    command = [str(peers.python), __file__, str(model)]
    environment = triton_environment(peers)
    environment["PYTHONPATH"] += f":{Path(__file__).resolve().parent.parent}"
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return {int(size): seconds for size, seconds in json.loads(output).items()}


def at_batch(costs: dict[int, float], rows: float) -> float:
    """The cost of a call with `rows` rows, interpolated between the measured sizes."""
    sizes = sorted(costs)
    if rows <= sizes[0]:
        return costs[sizes[0]]
    for low, high in itertools.pairwise(sizes):
        if rows <= high:
            return costs[low] + (costs[high] - costs[low]) * (rows - low) / (high - low)
    return costs[sizes[-1]] * rows / sizes[-1]


def _measure(path: str) -> dict[int, float]:
    import torch

    torch.set_num_threads(1)
    model = torch.jit.load(path).eval()
    costs = {}
    with torch.inference_mode():
        for size in SIZES:
            rows = torch.zeros(size, 1, 32, 32)
            for _ in range(50):
                model(rows)
            calls, start = 0, time.process_time()
            while (used := time.process_time() - start) < 0.5:
                model(rows)
                calls += 1
            costs[size] = used / calls
    return costs


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1])))
