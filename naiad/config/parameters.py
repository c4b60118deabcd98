"""The parameters of a configuration as a reader of model files is told them."""

from __future__ import annotations

from naiad.config.pbtxt import PartialConfig
from naiad.signature.pickles import TRUST


def of(partial: PartialConfig) -> dict[str, str]:
    """Texts by name. Trust in a pickle counts only where it lies in the repository: no client of a server gives it."""
    told = {name: value.string_value for name, value in partial.message.parameters.items()}
    if not partial.source.endswith(".pbtxt"):
        told.pop(TRUST, None)
    return told
