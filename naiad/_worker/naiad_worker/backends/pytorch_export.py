"""The pytorch backend in a zygote that has imported torch.export, too: its programs load in milliseconds then."""

from __future__ import annotations

from naiad_worker.backends import _torch_export, pytorch
from naiad_worker.backends.pytorch import FORKS, Backend

__all__ = ["FORKS", "Backend", "preimport"]


def preimport() -> None:
    """Imports torch and what it imports at the first load of an exported program; one thread is left."""
    pytorch.preimport()
    _torch_export.warm()
