"""The four stock clients behind one way to call them."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import numpy as np

from tests.support.server import Serve

CLIENTS = ("http", "http.aio", "grpc", "grpc.aio")
ROW = np.arange(4, dtype=np.float32).reshape(1, 4)


class Client:
    """One stock client; what it answers is awaited where it has to be, and a message becomes a dictionary."""

    def __init__(self, name: str, server: Serve) -> None:
        self.name = name
        self.server = server
        self.module = importlib.import_module(f"tritonclient.{name}")
        self.grpc = name.startswith("grpc")
        self.stock = self.module.InferenceServerClient(server.grpc if self.grpc else server.address)

    async def call(self, method: str, *arguments: Any, **options: Any) -> Any:
        function = getattr(self.stock, method)
        if "as_json" in inspect.signature(function).parameters:
            options["as_json"] = True
        answer = function(*arguments, **options)
        return await answer if inspect.isawaitable(answer) else answer

    def input(self, array: np.ndarray = ROW) -> Any:
        tensor = self.module.InferInput("INPUT0", list(array.shape), "FP32")
        tensor.set_data_from_numpy(array)
        return tensor
