"""The configuration in the hands of a model's `auto_complete_config`, with Triton's checks and texts."""

from __future__ import annotations

import json
from typing import Any

_TENSOR = ("name", "data_type", "dims")
_OTHER_SCHEDULERS = ("sequence_batching", "ensemble_scheduling")
_PROPERTIES = {
    "input": ((*_TENSOR, "optional"), "'name', 'data_type', 'dims' and 'optional'"),
    "output": (_TENSOR, "'name', 'data_type' and 'dims'"),
}


class ModelConfig:
    """What config.pbtxt says, to be completed by the model."""

    def __init__(self, model_config: str) -> None:
        self._model_config: dict[str, Any] = json.loads(model_config)

    def as_dict(self) -> dict[str, Any]:
        """The configuration as JSON names it."""
        return self._model_config

    @property
    def _name(self) -> str:
        return str(self._model_config["name"])

    def set_max_batch_size(self, max_batch_size: int) -> None:
        """Sets the largest batch; raises `ValueError` where the configuration says more."""
        written = self._model_config["max_batch_size"]
        if written > max_batch_size:
            raise ValueError(
                f"configuration specified max_batch_size {written}, but in auto-complete-config function for model "
                f"'{self._name}' specified max_batch_size {max_batch_size}"
            )
        self._model_config["max_batch_size"] = max_batch_size

    def set_dynamic_batching(self) -> None:
        """Switches the dynamic batcher on; raises `ValueError` where there is another scheduler."""
        for scheduler in _OTHER_SCHEDULERS:
            if scheduler in self._model_config:
                raise ValueError(
                    f"Configuration specified scheduling_choice as '{scheduler}', but auto-complete-config function "
                    f"for model '{self._name}' tries to set scheduling_choice as 'dynamic_batching'"
                )
        self._model_config.setdefault("dynamic_batching", {})

    def add_input(self, input: dict[str, Any]) -> None:
        """Adds an input (`name`, `data_type`, `dims`, perhaps `optional`) or completes the one of that name.

        Raises `ValueError` where one is missing, there is another, or the configuration says something else.
        """
        self._add("input", input)

    def add_output(self, output: dict[str, Any]) -> None:
        """Adds an output (`name`, `data_type`, `dims`) likewise."""
        self._add("output", output)

    def _add(self, kind: str, tensor: dict[str, Any]) -> None:
        known, listed = _PROPERTIES[kind]
        where = f"in auto-complete-config function for model '{self._name}'"
        for name in tensor:
            if name not in known:
                raise ValueError(f"{kind} '{tensor.get('name', '')}' {where} contains property other than {listed}.")
        if "name" not in tensor:
            raise ValueError(f"{kind} {where} is missing 'name' property.")
        for name in _TENSOR[1:]:
            if name not in tensor:
                raise ValueError(f"{kind} '{tensor['name']}' {where} is missing '{name}' property.")
        tensors = self._model_config.setdefault(kind, [])
        for written in tensors:
            if written["name"] == tensor["name"]:
                self._agree(kind, written, tensor)
                written.update({name: tensor[name] for name in known if name in tensor})
                return
        tensors.append(dict(tensor))

    def _agree(self, kind: str, written: dict[str, Any], tensor: dict[str, Any]) -> None:
        """What the configuration says of a tensor against what the model says; raises `ValueError`."""
        asked = written.get("data_type", "TYPE_INVALID")
        if asked not in ("TYPE_INVALID", tensor["data_type"]):
            raise ValueError(
                f"unable to load model '{self._name}', configuration expects datatype {asked} for {kind} "
                f"'{tensor['name']}', model provides {tensor['data_type']}"
            )
        for name in ("dims", "optional"):
            if name not in written or name not in tensor or (name == "dims" and not written[name]):
                continue
            theirs, ours = ((list(side[name]) if name == "dims" else bool(side[name])) for side in (tensor, written))
            if theirs != ours:
                raise ValueError(
                    f"model '{self._name}', tensor '{tensor['name']}': the model expects {name} {theirs} but the model "
                    f"configuration specifies {name} {ours}"
                )

    def set_model_transaction_policy(self, transaction_policy_dict: dict[str, Any]) -> None:
        """Says whether the model is decoupled; raises `ValueError` where the configuration says otherwise."""
        if any(name != "decoupled" for name in transaction_policy_dict):
            raise ValueError(
                f"model transaction property in auto-complete-config function for model '{self._name}' contains "
                "property other than 'decoupled'."
            )
        policy = self._model_config.setdefault("model_transaction_policy", {})
        if "decoupled" not in transaction_policy_dict:
            return
        wanted = transaction_policy_dict["decoupled"]
        if policy.get("decoupled", wanted) != wanted:
            raise ValueError(
                f"trying to change decoupled property in auto-complete-config for model '{self._name}', which is "
                f"already set to '{policy['decoupled']}'."
            )
        policy["decoupled"] = wanted


def tensor_config(model_config: dict[str, Any], kind: str, name: str) -> dict[str, Any] | None:
    """What a configuration says of one input or output; None if there is none of that name."""
    return next((tensor for tensor in model_config.get(kind, []) if tensor["name"] == name), None)


def is_decoupled(model_config: dict[str, Any]) -> bool:
    """Whether a configuration says that requests have any number of responses."""
    return bool(model_config.get("model_transaction_policy", {}).get("decoupled", False))
