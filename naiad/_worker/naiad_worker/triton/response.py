"""The answer of a Triton Python model to one request, and the sender that may carry it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from typing import Any

from naiad_worker.triton.errors import TritonError, TritonModelException
from naiad_worker.triton.tensor import Tensor

COMPLETE_FINAL = 1


class InferenceResponse:
    """Output tensors or an error, and parameters: names with booleans, integers or strings."""

    def __init__(
        self, output_tensors: Any = (), error: TritonError | None = None, parameters: dict[str, Any] | None = None
    ) -> None:
        if isinstance(output_tensors, Tensor) or not isinstance(output_tensors, Iterable):
            raise TypeError(f"InferenceResponse: expected a list of tensors, got {type(output_tensors).__name__}")
        tensors = list(output_tensors)
        for tensor in tensors:
            if not isinstance(tensor, Tensor):
                raise TypeError(f"InferenceResponse: expected tensors, got {type(tensor).__name__}")
        if error is not None and not isinstance(error, TritonError):
            raise TypeError(f"InferenceResponse: error: expected a TritonError, got {type(error).__name__}")
        self._tensors = tensors
        self._error = error
        self._parameters = parameters_text(parameters)

    def output_tensors(self) -> list[Tensor]:
        """The tensors."""
        return self._tensors

    def has_error(self) -> bool:
        """Whether it carries an error in their place."""
        return self._error is not None

    def error(self) -> TritonError | None:
        """The error."""
        return self._error

    def parameters(self) -> str:
        """The parameters as a JSON object, "" if there are none."""
        return self._parameters


def parameters_text(parameters: Any) -> str:
    """Parameters as a JSON object; raises `TritonModelException` for a value that cannot travel."""
    if not parameters:
        return ""
    if not isinstance(parameters, dict):
        raise TypeError(f"parameters: expected a dict, got {type(parameters).__name__}")
    for name, value in parameters.items():
        if not isinstance(name, str):
            raise TritonModelException(f"Expect parameters keys to have type str, found type {type(name)}")
        if not isinstance(value, (bool, int, str)):
            raise TritonModelException(f"Expect parameters values to have type bool/int/str, found type {type(value)}")
    return json.dumps(parameters, separators=(",", ":"))


class InferenceResponseSender:
    """Takes the one response of a request, where it is not returned from `execute`."""

    def __init__(self, is_cancelled: Callable[[], bool]) -> None:
        self._is_cancelled = is_cancelled
        self._lock = threading.Lock()
        self._closed = False
        self.response: InferenceResponse | None = None

    def is_cancelled(self) -> bool:
        """Whether nobody waits for the response any more."""
        return self._is_cancelled()

    def send(self, response: InferenceResponse | None = None, flags: int = 0) -> None:
        """Hands the response over; raises `TritonModelException` for a second one."""
        if flags not in (0, COMPLETE_FINAL):
            raise TritonModelException("Unable to send response. Unsupported flag provided.")
        if response is None and flags == 0:
            raise TritonModelException(
                "Inference Response object must be provided when the response flags is set to zero."
            )
        if response is not None and not isinstance(response, InferenceResponse):
            raise TypeError(f"expected an InferenceResponse, got {type(response).__name__}")
        with self._lock:
            if response is not None and self.response is not None:
                raise TritonModelException(
                    "Unable to send response. Non-decoupled model cannot send more than one response."
                )
            if response is None and self.response is None:
                raise TritonModelException(
                    "Unable to send response. Non-decoupled model cannot send complete final before sending a response."
                )
            if self._closed:
                raise TritonModelException("Unable to send response. Response sender has been closed.")
            self._closed = flags == COMPLETE_FINAL
            if response is not None:
                self.response = response

    def close(self) -> None:
        """From now on nothing is taken."""
        with self._lock:
            self._closed = True
