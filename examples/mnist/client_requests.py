"""Sends the sample digit with the package `requests` and prints which digit the service sees."""

from __future__ import annotations

import json
import os
from pathlib import Path

import requests

HERE = Path(__file__).resolve().parent
STATE = HERE.parent.parent / ".naiad"


def service() -> tuple[str, dict[str, str]]:
    """Return the service's URL and the header with its key: from the environment, or from what `make up` left."""
    if url := os.environ.get("URL"):
        key = os.environ.get("KEY")
        return url, {"X-API-Key": key} if key else {}
    addresses = json.loads((STATE / "run" / "addresses.json").read_text())
    name, _, value = (STATE / "keys" / "mnist-cnn.header").read_text().strip().partition(": ")
    return f"{addresses['http_url']}/v2/models/mnist-cnn", {name: value}


def main() -> None:
    """Call the service and name the digit."""
    url, headers = service()
    body = json.loads((HERE / "request.json").read_text())
    answer = requests.post(f"{url}/infer", json=body, headers=headers, timeout=10)
    answer.raise_for_status()
    scores = answer.json()["outputs"][0]["data"]
    print(f"the digit is {scores.index(max(scores))}")


if __name__ == "__main__":
    main()
