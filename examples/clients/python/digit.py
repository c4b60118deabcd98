"""What the three clients share: where the server is, the digit that they send, and how an answer reads."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.utils import InferenceServerException

URL = os.environ.get("URL", "http://127.0.0.1:8000")
GRPC = os.environ.get("GRPC", "127.0.0.1:8001")
MODEL = os.environ.get("MODEL", "mnist-cnn")
HEADERS = {"x-api-key": os.environ["KEY"]} if os.environ.get("KEY") else {}

_tensor = json.loads((Path(__file__).resolve().parents[2] / "mnist" / "request.json").read_text())["inputs"][0]
NAME: str = _tensor["name"]
PIXELS = np.array(_tensor["data"], np.float32).reshape(_tensor["shape"])


def digit(scores: np.ndarray) -> str:
    """Name the digit with the highest of the ten scores."""
    return f"the digit is {scores.argmax()}"


def refusal(call: Callable[[], Any]) -> str:
    """Return what the server says to a call that it refuses: the status and the server's own words."""
    try:
        call()
    except InferenceServerException as error:
        return f"{error.status()} {error.message()}"
    return "nothing was refused"
