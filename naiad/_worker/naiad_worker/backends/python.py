"""Triton's Python models: model.py with a class TritonPythonModel that is handed lists of requests."""

from __future__ import annotations

import inspect
import json
import threading
from typing import Any

from naiad_worker import output
from naiad_worker.backends import LoadFailure, LoadSpec
from naiad_worker.channel import MAX_TEXT
from naiad_worker.listing import Answer, Asked
from naiad_worker.parameters import parameter
from naiad_worker.serving import INTERNAL, OK
from naiad_worker.tensors import code_of
from naiad_worker.triton import loading
from naiad_worker.triton.model_config import ModelConfig, is_decoupled
from naiad_worker.triton.request import InferenceRequest
from naiad_worker.triton.response import InferenceResponse
from naiad_worker.triton.tensor import Tensor

FORKS = True
FORCE_CPU = "FORCE_CPU_ONLY_INPUT_TENSORS"
READY_SECS = 5.0
"""What one call of `is_ready` may take."""
_READY_TICK = 0.1


def preimport() -> None:
    """What every model imports, so that workers share it."""
    import triton_python_backend_utils  # noqa: F401


def describe(spec: LoadSpec) -> dict[str, Any]:
    """The configuration as the model's `auto_complete_config` gives it back; raises `LoadFailure`."""
    cls = loading.model_class(spec)
    complete = getattr(cls, "auto_complete_config", None)
    if complete is None:
        return spec.config
    with loading.told(spec, "auto_complete_config()"):
        answer = complete(ModelConfig(json.dumps(spec.config)))
    if not isinstance(answer, ModelConfig):
        raise LoadFailure(
            f"auto_complete_config function in model '{spec.model}' must return a valid pb.ModelConfig object.",
            "return the object that it was given",
        )
    try:
        plain: dict[str, Any] = json.loads(json.dumps(answer.as_dict(), default=_plain))
    except (TypeError, ValueError) as error:
        raise LoadFailure(f"auto_complete_config of model '{spec.model}' gives what is no JSON: {error}") from error
    return plain


def _plain(value: Any) -> Any:
    """Numbers of numpy as those of Python."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"values of {type(value).__name__} cannot be written")


def _check_force_cpu(spec: LoadSpec) -> None:
    """Inputs are on the CPU whatever it says: `no` allows a GPU, it does not ask for one. Raises `LoadFailure`."""
    value = parameter(spec.config, FORCE_CPU)
    if value not in ("", "yes", "no"):
        raise LoadFailure(
            f"parameters '{FORCE_CPU}': expected yes or no, got '{value}'",
            "correct it in config.pbtxt",
            "CONFIG_INVALID",
        )


class Backend:
    """One instance of a model."""

    def __init__(self, spec: LoadSpec) -> None:
        if is_decoupled(spec.config):
            raise LoadFailure(
                "decoupled Python models come with a later version of Naiad",
                "write 'model_transaction_policy { decoupled: false }' if each request has one response",
            )
        _check_force_cpu(spec)
        self._name = loading.instance_name(spec)
        self._outputs = [str(tensor["name"]) for tensor in spec.config.get("output", [])]
        self._inputs: list[str] = []
        self._loop: Any = None
        self._told: set[str] = set()
        self._asking: threading.Thread | None = None
        cls = loading.model_class(spec)
        if not callable(getattr(cls, "execute", None)):
            raise LoadFailure(f"'{spec.file}' does not implement `execute` method.", "write execute(self, requests)")
        with loading.told(spec, "TritonPythonModel()"):
            self._model = cls()
        if hasattr(self._model, "initialize"):
            with loading.told(spec, "initialize()"):
                self._model.initialize(loading.arguments(spec, self._name))

    def serve(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Learns the order of the tensors and waits until the model says that it is ready, if it says such things."""
        self._inputs = [tensor["name"] for tensor in inputs]
        self._outputs = [tensor["name"] for tensor in outputs]
        while self.says_ready and not self.is_ready():
            if self._asking is not None:
                text = f"is_ready() took longer than {READY_SECS:.0f} s"
                raise LoadFailure(text, "let it answer from what is known")
            threading.Event().wait(_READY_TICK)

    @property
    def says_ready(self) -> bool:
        """Whether the model says itself whether it is ready."""
        return hasattr(self._model, "is_ready")

    def is_ready(self) -> bool:
        """One call of the model's `is_ready`, never two at a time; one that takes too long or raises says no."""
        if self._asking is not None and self._asking.is_alive():
            return False
        said: list[bool] = []

        def ask() -> None:
            try:
                said.append(bool(self._result(self._model.is_ready(), own_loop=True)))
            except Exception as error:
                if (key := f"{type(error).__name__} in is_ready") not in self._told:  # it may be asked every second
                    self._told.add(key)
                    output.say_error(error)

        self._asking = threading.Thread(target=ask, name="is_ready", daemon=True)
        self._asking.start()
        self._asking.join(READY_SECS)
        if not self._asking.is_alive():
            self._asking = None
        return said == [True]

    # -- execution --------------------------------------------------------------------------------------------------

    def answer(self, asked: list[Asked]) -> list[Answer]:
        """What each request gets; what fails as a whole fails for all of them."""
        requests = [self._request(one) for one in asked]
        try:
            responses = self._run(requests)
        except BaseException as error:  # a model may raise anything: extensions in Rust panic with no Exception
            return [Answer(INTERNAL, [], self._failed(error))] * len(asked)
        return [self._answer(*pair) for pair in zip(requests, responses)]

    def _request(self, asked: Asked) -> InferenceRequest:
        tensors = [Tensor.of(self._inputs[index], array, code_of(array)) for index, array in asked.inputs.items()]
        return InferenceRequest.received(tensors, asked.meta, self._outputs, asked.is_cancelled)

    def _run(self, requests: list[InferenceRequest]) -> list[InferenceResponse]:
        """The response of each request; raises what the model raises, and `_WrongReturn`."""
        try:
            given = self._result(self._model.execute(requests))
            return _paired(requests, given)
        finally:
            for request in requests:
                request.get_response_sender().close()

    def _result(self, value: Any, *, own_loop: bool = False) -> Any:
        """The value, awaited where it has to be: on one loop for all calls, so that what belongs to a loop lives on."""
        if not inspect.isawaitable(value):
            return value
        import asyncio

        async def awaited() -> Any:
            return await value

        if own_loop:
            return asyncio.run(awaited())
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        return self._loop.run_until_complete(awaited())

    def _failed(self, error: BaseException) -> bytes:
        """The text of a failed execution; its traceback goes to the log."""
        if isinstance(error, _WrongReturn):
            cause = str(error)
            output.say(output.ERROR, self._text(cause))
        else:
            output.say_error(error)
            try:
                cause = f"{type(error).__name__}: {error}"
            except Exception:  # an exception class may be broken, too
                cause = f"{type(error).__name__}: (its message cannot be printed)"
        return cut(self._text(cause))

    def _text(self, cause: str) -> str:
        return f"Failed to process the request(s) for model '{self._name}', message: {cause}"

    def _answer(self, request: InferenceRequest, response: InferenceResponse) -> Answer:
        """One response as the worker protocol has it, without outputs that nobody asked for; raises nothing."""
        error = response.error()
        if error is not None:
            return Answer(error.code() + 1, [], cut(error.message()))
        outputs: dict[int, Any] = {}
        unknown, unwanted = [], False
        wanted = request.requested_output_names()
        for tensor in response.output_tensors():
            if tensor.name() not in self._outputs:
                unknown.append(tensor.name())
                continue
            if tensor.name() not in wanted:
                unwanted = True
                continue
            index = self._outputs.index(tensor.name())
            if index in outputs:
                return Answer(INTERNAL, [], cut(self._text(f"the response has output '{tensor.name()}' twice")))
            outputs[index] = tensor.on_host()
        nothing = not outputs and not unwanted
        if unknown and (nothing or unknown[0] not in self._told):
            there = ", ".join(f"'{name}'" for name in self._outputs)
            text = f"the response has output '{unknown[0]}', expected one of the configuration's: {there}"
            if nothing:
                return Answer(INTERNAL, [], cut(self._text(text)))
            self._told.add(unknown[0])
            output.say(output.WARNING, f"{self._text(text)}; it is left out")
        return Answer(OK, list(outputs.items()), response.parameters().encode())

    def probe(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name for inputs by name, as one request: a warm-up sample. Raises what the model raises."""
        tensors = [Tensor.of(name, array, code_of(array)) for name, array in inputs.items()]
        request = InferenceRequest.received(tensors, b"", self._outputs, lambda: False)
        (response,) = self._run([request])
        error = response.error()
        if error is not None:
            raise RuntimeError(error.message())
        return {tensor.name(): tensor.on_host() for tensor in response.output_tensors()}

    def finalize(self) -> None:
        """Lets the model give back what it holds."""
        if hasattr(self._model, "finalize"):
            self._model.finalize()


class _WrongReturn(Exception):
    """What `execute` returned is not what it has to return."""


def _paired(requests: list[InferenceRequest], given: Any) -> list[InferenceResponse]:
    """The response of each request, from the list or from its sender; raises `_WrongReturn` with Triton's texts."""
    senders = [request.get_response_sender() for request in requests]
    if given is None and any(sender.response is not None for sender in senders):
        given = [None] * len(requests)
    if not isinstance(given, list):
        raise _WrongReturn(f"Expected a list in the execute return, found type '{type(given)}'.")
    if len(given) != len(requests):
        raise _WrongReturn(
            "Number of InferenceResponse objects do not match the number of InferenceRequest objects. "
            f"InferenceRequest(s) size is:{len(requests)}, and InferenceResponse(s) size is:{len(given)}\n"
        )
    responses = []
    for sender, returned in zip(senders, given):
        if returned is not None and sender.response is not None:
            raise _WrongReturn("Unable to send response. Non-decoupled model cannot send more than one response.")
        response = sender.response if returned is None else returned
        if not isinstance(response, InferenceResponse):
            raise _WrongReturn(
                "Expected an 'InferenceResponse' object in the execute function return list, found type "
                f"'{type(response)}'."
            )
        responses.append(response)
    return responses


def cut(text: str) -> bytes:
    """A text as its record carries it: whole characters, at most MAX_TEXT bytes."""
    return text.encode("utf-8", "replace")[:MAX_TEXT].decode("utf-8", "ignore").encode()
