"""The module that Triton's Python models import, with Triton's names (features of its Python backend, default mode).

Calls that belong to models which call other models, to decoupled models or to sequences raise
`TritonModelException` that says so.
"""

from __future__ import annotations

from typing import Any, NoReturn

from naiad_worker.triton import model_config as _config
from naiad_worker.triton import request as _request
from naiad_worker.triton.errors import TritonError, TritonModelException, later
from naiad_worker.triton.metrics import Metric, MetricFamily, MetricKind
from naiad_worker.triton.model_config import ModelConfig
from naiad_worker.triton.request import InferenceRequest, InferenceTrace, PreferredMemory
from naiad_worker.triton.response import COMPLETE_FINAL, InferenceResponse, InferenceResponseSender
from naiad_worker.triton.telemetry import Logger, LogLevel
from naiad_worker.triton.tensor import Tensor
from naiad_worker.triton.types import (
    TRITON_STRING_TO_NUMPY,
    deserialize_bytes_tensor,
    numpy_to_triton_type,
    serialize_byte_tensor,
    triton_string_to_numpy,
    triton_to_numpy_type,
)

TRITONSERVER_REQUEST_FLAG_SEQUENCE_START = _request.SEQUENCE_START
TRITONSERVER_REQUEST_FLAG_SEQUENCE_END = _request.SEQUENCE_END
TRITONSERVER_RESPONSE_COMPLETE_FINAL = COMPLETE_FINAL
TRITONSERVER_REQUEST_RELEASE_ALL = _request.RELEASE_ALL
TRITONSERVER_REQUEST_RELEASE_RESCHEDULE = _request.RELEASE_RESCHEDULE
TRITONSERVER_MEMORY_CPU = _request.MEMORY_CPU
TRITONSERVER_MEMORY_CPU_PINNED = _request.MEMORY_CPU_PINNED
TRITONSERVER_MEMORY_GPU = _request.MEMORY_GPU

__all__ = [
    "TRITONSERVER_MEMORY_CPU",
    "TRITONSERVER_MEMORY_CPU_PINNED",
    "TRITONSERVER_MEMORY_GPU",
    "TRITONSERVER_REQUEST_FLAG_SEQUENCE_END",
    "TRITONSERVER_REQUEST_FLAG_SEQUENCE_START",
    "TRITONSERVER_REQUEST_RELEASE_ALL",
    "TRITONSERVER_REQUEST_RELEASE_RESCHEDULE",
    "TRITONSERVER_RESPONSE_COMPLETE_FINAL",
    "TRITON_STRING_TO_NUMPY",
    "InferenceRequest",
    "InferenceResponse",
    "InferenceResponseSender",
    "InferenceTrace",
    "LogLevel",
    "Logger",
    "Metric",
    "MetricFamily",
    "MetricKind",
    "ModelConfig",
    "PreferredMemory",
    "Tensor",
    "TritonError",
    "TritonModelException",
    "deserialize_bytes_tensor",
    "get_input_config_by_name",
    "get_input_tensor_by_name",
    "get_model_dir",
    "get_output_config_by_name",
    "get_output_tensor_by_name",
    "is_model_ready",
    "load_model",
    "numpy_to_triton_type",
    "serialize_byte_tensor",
    "triton_string_to_numpy",
    "triton_to_numpy_type",
    "unload_model",
    "using_decoupled_model_transaction_policy",
]

_model_directory = ""
"""Set by the worker."""


def get_model_dir() -> str:
    """The version folder that the model was loaded from."""
    return _model_directory


def get_input_tensor_by_name(inference_request: Any, name: str) -> Tensor | None:
    """The input of that name; None if the request has none."""
    return next((tensor for tensor in inference_request.inputs() if tensor.name() == name), None)


def get_output_tensor_by_name(inference_response: Any, name: str) -> Tensor | None:
    """The output of that name; None if the response has none."""
    return next((tensor for tensor in inference_response.output_tensors() if tensor.name() == name), None)


def get_input_config_by_name(model_config: dict[str, Any], name: str) -> dict[str, Any] | None:
    """What a configuration (as a dictionary) says of an input; None if it has none of that name."""
    return _config.tensor_config(model_config, "input", name)


def get_output_config_by_name(model_config: dict[str, Any], name: str) -> dict[str, Any] | None:
    """What a configuration (as a dictionary) says of an output; None if it has none of that name."""
    return _config.tensor_config(model_config, "output", name)


def using_decoupled_model_transaction_policy(model_config: dict[str, Any]) -> bool:
    """Whether a configuration (as a dictionary) says that requests have any number of responses."""
    return _config.is_decoupled(model_config)


def load_model(model_name: str, config: str = "", files: Any = None) -> NoReturn:
    """Loads another model: raises `TritonModelException`, for this comes later."""
    raise later("load_model: control of other models comes")


def unload_model(model_name: str, unload_dependents: bool = False) -> NoReturn:
    """Unloads another model likewise."""
    raise later("unload_model: control of other models comes")


def is_model_ready(model_name: str, model_version: str = "") -> NoReturn:
    """Whether another model is ready likewise."""
    raise later("is_model_ready: control of other models comes")
