"""A request as `execute` of a Triton Python model gets it, or as a model makes one for another model."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from naiad_worker.triton.errors import TritonModelException, later
from naiad_worker.triton.response import InferenceResponseSender, parameters_text
from naiad_worker.triton.tensor import Tensor

MEMORY_CPU, MEMORY_CPU_PINNED, MEMORY_GPU = 0, 1, 2
SEQUENCE_START, SEQUENCE_END = 1, 2
RELEASE_ALL, RELEASE_RESCHEDULE = 1, 2
_CALLS = "models that call other models (BLS) come"


class PreferredMemory:
    """Where a model would like to have the outputs of another one."""

    def __init__(self, preferred_memory_type: int, preferred_device_id: int = 0) -> None:
        self._kind = preferred_memory_type
        self._device = preferred_device_id

    def preferred_memory_type(self) -> int:
        """TRITONSERVER_MEMORY_CPU or TRITONSERVER_MEMORY_GPU."""
        return self._kind

    def preferred_device_id(self) -> int:
        """Number of the GPU."""
        return self._device


class InferenceTrace:
    """The trace that a request belongs to."""

    def __init__(self, traceparent: str) -> None:
        self._traceparent = traceparent

    def get_context(self) -> str | None:
        """The W3C context as a JSON object with `traceparent`; None where the request is not traced."""
        return json.dumps({"traceparent": self._traceparent}) if self._traceparent else None


def _never() -> bool:
    return False


class InferenceRequest:
    """One request; what the client did not say has Triton's default."""

    def __init__(  # noqa: PLR0913, PLR0917 - Triton's own signature
        self,
        model_name: str = "",
        requested_output_names: Any = (),
        inputs: Any = (),
        request_id: str = "",
        correlation_id: Any = 0,
        model_version: int = -1,
        flags: int = 0,
        timeout: int = 0,
        preferred_memory: PreferredMemory | None = None,
        trace: InferenceTrace | None = None,
        parameters: dict[str, Any] | None = None,
    ) -> None:
        self._inputs = list(inputs)
        if any(not isinstance(tensor, Tensor) for tensor in self._inputs):
            raise TypeError("InferenceRequest: inputs: expected tensors")
        self._outputs = list(requested_output_names)
        self._meta: dict[str, Any] | None = {
            "id": request_id,
            "correlation_id": correlation_id,
            "flags": flags,
            "timeout": timeout,
            "priority": 0,
            "parameters": parameters_text(parameters),
            "trace": trace or InferenceTrace(""),
        }
        self._raw = b""
        self._model = (model_name, model_version)
        self._memory = preferred_memory or PreferredMemory(MEMORY_CPU)
        self._sender = InferenceResponseSender(_never)
        self.release_flags = RELEASE_ALL

    @classmethod
    def received(cls, tensors: list[Tensor], meta: bytes, outputs: list[str], is_cancelled: Any) -> InferenceRequest:
        """A request of a client: `meta` is what the worker protocol says of it, `outputs` are the model's names."""
        request = cls.__new__(cls)
        request._inputs, request._outputs, request._raw, request._meta = tensors, outputs, meta, None
        request._model, request._memory = ("", -1), PreferredMemory(MEMORY_CPU)
        request._sender = InferenceResponseSender(is_cancelled)
        request.release_flags = RELEASE_ALL
        return request

    def _said(self) -> dict[str, Any]:
        """What the client said besides its tensors; read when the model first asks."""
        if self._meta is None:
            self._meta = _understood(json.loads(self._raw) if self._raw else {})
        return self._meta

    def inputs(self) -> list[Tensor]:
        """The input tensors."""
        return self._inputs

    def request_id(self) -> str:
        """The client's id, "" if there is none."""
        return str(self._said()["id"])

    def correlation_id(self) -> Any:
        """The sequence that it belongs to: a number or a string; 0 for none."""
        return self._said()["correlation_id"]

    def requested_output_names(self) -> list[str]:
        """Names of the outputs that are to be made."""
        return self._said().get("outputs") or self._outputs

    def preferred_memory(self) -> PreferredMemory:
        """Where outputs should lie."""
        return self._memory

    def flags(self) -> int:
        """TRITONSERVER_REQUEST_FLAG_SEQUENCE_START and _END."""
        return int(self._said()["flags"])

    def set_flags(self, flags: int) -> None:
        """Sets the flags of a request for another model."""
        self._said()["flags"] = flags

    def timeout(self) -> int:
        """Microseconds that it may wait; 0 where nothing was said."""
        return int(self._said()["timeout"])

    def priority(self) -> int:
        """Its priority; 0 where nothing was said."""
        return int(self._said()["priority"])

    def parameters(self) -> str:
        """Its parameters as a JSON object, "" if there are none."""
        return str(self._said()["parameters"])

    def trace(self) -> InferenceTrace:
        """The trace that it belongs to."""
        return self._said()["trace"]  # type: ignore[no-any-return]

    def model_name(self) -> str:
        """The model that a request for another model is for."""
        return self._model[0]

    def model_version(self) -> int:
        """Its version, -1 for the one that the policy chooses."""
        return self._model[1]

    def is_cancelled(self) -> bool:
        """Whether nobody waits for the response any more."""
        return self._sender.is_cancelled()

    def get_response_sender(self) -> InferenceResponseSender:
        """Takes the response in place of the list that `execute` returns, before `execute` returns."""
        return self._sender

    def set_release_flags(self, flags: int) -> None:
        """Says whether the request is done; raises where it should be scheduled again."""
        if flags == RELEASE_RESCHEDULE:
            raise later("rescheduled requests come")
        if flags != RELEASE_ALL:
            raise TritonModelException("Unable to set release flags: expected TRITONSERVER_REQUEST_RELEASE_ALL")
        self.release_flags = flags

    def exec(self, decoupled: bool = False) -> NoReturn:
        """Calls another model: raises `TritonModelException`, for this comes later."""
        raise later(f"InferenceRequest.exec: {_CALLS}")

    async def async_exec(self, decoupled: bool = False) -> NoReturn:
        """Calls another model likewise."""
        raise later(f"InferenceRequest.async_exec: {_CALLS}")


def _understood(meta: dict[str, Any]) -> dict[str, Any]:
    """What the protocol says of a request; the parameters with a meaning of their own are no parameters."""
    parameters = dict(meta.get("parameters") or {})
    correlation = parameters.pop("sequence_id", 0)
    start, end = parameters.pop("sequence_start", False), parameters.pop("sequence_end", False)
    return {
        "id": meta.get("id", ""),
        "correlation_id": correlation,
        "flags": (SEQUENCE_START if start is True else 0) | (SEQUENCE_END if end is True else 0),
        "timeout": meta.get("timeout", 0),
        "priority": meta.get("priority", 0),
        "outputs": meta.get("outputs"),
        "parameters": json.dumps(parameters, separators=(",", ":")) if parameters else "",
        "trace": InferenceTrace(meta.get("traceparent", "")),
    }
