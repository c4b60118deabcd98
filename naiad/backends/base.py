"""What the server knows of a backend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """The server half of a backend; the worker half has the same file name."""

    name: str
    platforms: tuple[str, ...] = ()
    """Other spellings in `platform`."""
    filenames: tuple[str, ...] = ()
    """Names under which its models lie in a version folder, the usual one first; none where it needs no file."""
    first: str = ""
    """A file that wins over those, where it lies beside them."""
    halves: Mapping[str, str] = field(default_factory=dict)
    """Worker halves for some suffixes, where these want other imports in their zygote; else the name's own."""
    reads_signature: bool = False
    """Whether `signature` can say something about its files, so that a dry run can complete a configuration."""
    needs: tuple[str, ...] = ()
    """Modules that an environment must hold for it, numpy apart."""
    describes: bool = False
    """Whether its models say themselves what they take: the worker half then has `describe(spec)`."""
    forks: bool = True
    """Whether its framework survives a fork; if not, each worker is a process of its own from the start."""
    warm_up_calls: int = 3
    """Calls at batch 1 and at the largest before READY: frameworks that compile as they go need some at each size.

    With 1 a call at batch 1 is enough: nothing is compiled, and memory for the largest batch is taken when one comes.
    """
    merges: bool = False
    """Whether requests are merged also where a batch size is written without a scheduler, as Triton does for ONNX."""
    max_batch_size: int = 32
    """What Naiad chooses where nothing says."""

    def half(self, file: str) -> str:
        """The worker half that serves a file of this name."""
        return self.halves.get(PurePath(file).suffix, self.name)

    @property
    def default_filename(self) -> str:
        """The name of its model file; "" where it needs none."""
        return self.filenames[0] if self.filenames else ""
