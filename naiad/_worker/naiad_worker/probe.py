"""The dry run: what a model gives for zeros of the recorded shapes, whether it batches, which dims may vary."""

from __future__ import annotations

import time
from typing import Any

from naiad_worker.fill import filled
from naiad_worker.rows import mixing
from naiad_worker.sizes import SIZES, Shapes, guesses, known, sized
from naiad_worker.tensors import datatype_of

BATCHES = (1, 2, 3)
SEARCH_SECS = 30
"""How long a size is looked for; each try is a run of the model."""


class Probe:
    """Runs one backend at several shapes."""

    def __init__(self, backend: Any, inputs: list[dict[str, Any]]) -> None:
        self._backend = backend
        self._inputs = inputs
        # Where the file declares its dims, -1 may be any size and the others are fixed: nothing is to be found out.
        self._declared = {t["name"]: t["dims"] for t in inputs if t.get("declared")}
        # Where the user writes a size, no other one is of interest: outputs are told as they are at that size.
        self._fixed = {t["name"]: t["fixed"] for t in inputs if t.get("fixed")}
        self._guesses = any("guesses" in t for t in inputs)

    def run(self, shapes: Shapes) -> dict[str, Any]:
        """Outputs by name; whatever the model raises passes through."""
        arrays = {
            tensor.get("argument") or tensor["name"]: filled(tensor, shapes[tensor["name"]]) for tensor in self._inputs
        }
        return self._backend.probe(arrays)  # type: ignore[no-any-return]

    def recorded(self) -> Shapes:
        """The shapes as they were told, -1 taken as 1."""
        return {t["name"]: sized(t["dims"], 1) for t in self._inputs}

    def example(self) -> Shapes:
        """The file's example, written dims as they are written."""
        return {
            t["name"]: [shown if dim < 0 else dim for dim, shown in zip(t["dims"], t["example"])] for t in self._inputs
        }

    def sample(self) -> Shapes:
        """Shapes at which the model runs: those of the file's example, else open dims at the first size it accepts."""
        tried = [self.example()] if all("example" in t for t in self._inputs) else []
        if not any(dim < 0 for dims in self._declared.values() for dim in dims[1:]):
            tried.append(self.recorded())
        else:
            tried += [{t["name"]: sized(t["dims"], size) for t in self._inputs} for size in SIZES]
        if len(tried) == 1:
            return tried[0]
        failure: Exception | None = None
        for shapes in tried:
            try:
                self.run(shapes)
            except Exception as error:  # the model's own error, of any class
                failure = failure or error
                continue
            return shapes
        assert failure is not None
        raise failure

    def _guessed(self, *, batched: bool) -> Shapes:
        """The first guess at which the model runs and batches, else at which it runs.

        A size at which the batch does not follow is a wrong one for many models: `view(-1, 400)` makes rows of what is
        left over.
        """
        runs: Shapes | None = None
        first: tuple[Shapes, Exception] | None = None
        end = time.monotonic() + SEARCH_SECS
        tried = 0
        for shapes in guesses(self._inputs):
            if time.monotonic() > end:
                break
            tried += 1
            try:
                self.run(shapes)
            except Exception as error:  # the model's own error, of any class
                first = first or (shapes, error)
                continue
            if not batched or self._try_batches(shapes) == (True, ""):
                return shapes
            runs = runs or shapes
        if runs is None:
            assert first is not None
            shapes, error = first
            raise RuntimeError(f"none of {tried} guessed shapes runs; at {shapes}: {one_line(error)}") from error
        return runs

    def report(self, *, batched: bool) -> dict[str, Any]:
        """The PROBED message's fields."""
        shapes = self._guessed(batched=batched) if self._guesses else self.sample()
        self._fixed.update(known(self._inputs, shapes))
        batchable, reason, mixed = None, "", False
        if batched:
            batchable, reason = self._try_batches(shapes)
            mixed = batchable and bool(reason)
            batchable = batchable and not mixed
            if batchable:
                shapes = {name: [1, *dims[1:]] for name, dims in shapes.items()}
        outputs = self.run(shapes)
        # Nothing found in zeros (no box, no word) is no size: there is as much as the input holds.
        seen = {name: [dim or -1 for dim in array.shape] for name, array in outputs.items()}
        if batchable:
            for dims in seen.values():
                dims[0] = -1
        varying = self._try_dims(shapes, seen, first=1 if batchable else 0)
        return {
            "outputs": [
                {"name": name, "datatype": datatype_of(array), "dims": seen[name]} for name, array in outputs.items()
            ],
            "batchable": batchable,
            "reason": reason,
            "mixed": mixed,
            "varying": varying,
            "shapes": shapes,
        }

    def _try_batches(self, shapes: Shapes) -> tuple[bool, str]:
        """Whether the outputs' first dim follows the inputs' at batch 1, 2 and 3, and why one should not batch.

        A reason without a no: the dims follow, but rows do not keep apart.
        """
        if any(not dims for dims in shapes.values()):
            return False, "an input has no dimension that could be the batch"
        for name, dims in self._declared.items():
            if dims[0] != -1:
                return False, f"the file fixes the first dimension of input '{name}' at {dims[0]}"
        for batch in BATCHES:
            try:
                outputs = self.run({name: [batch, *dims[1:]] for name, dims in shapes.items()})
            except Exception as error:  # the model's own error, of any class
                return False, f"a run at batch {batch} fails: {one_line(error)}"
            for name, array in outputs.items():
                if array.ndim == 0 or array.shape[0] != batch:
                    return False, f"at batch {batch} output '{name}' has shape {list(array.shape)}"
        return True, mixing(self._backend.probe, self._inputs, shapes)

    def _try_dims(self, shapes: Shapes, seen: dict[str, list[int]], *, first: int) -> dict[str, list[bool]]:
        """Which other dims may vary: those where runs at twice and three times their size both succeed.

        Dims of the same size at the same place move together (token ids and their mask). Output dims that move are
        set to -1 in `seen`. Of declared dims only the open ones are moved, and they may vary whatever the runs say.
        """
        varying = {name: [False] * len(dims) for name, dims in shapes.items()}
        for (place, size), names in self._groups(shapes, varying, first).items():
            results = []
            for factor in (2, 3):
                scaled = {name: list(dims) for name, dims in shapes.items()}
                for name in names:
                    scaled[name][place] = size * factor
                try:
                    outputs = self.run(scaled)
                except Exception:  # it does not vary; that is the answer
                    break
                if first and any(array.shape[:1] != (1,) for array in outputs.values()):
                    break  # `view(-1, 784)`: what was longer became more rows
                results.append(outputs)
            if len(results) < 2:
                continue
            for name in names:
                varying[name][place] = True
            for outputs in results:
                for name, array in outputs.items():
                    for at, dim in enumerate(array.shape):
                        if name in seen and at < len(seen[name]) and seen[name][at] not in (-1, dim):
                            seen[name][at] = -1
        return varying

    def _groups(self, shapes: Shapes, varying: dict[str, list[bool]], first: int) -> dict[tuple[int, int], list[str]]:
        """Inputs by place and size of the dims to move; those that are declared open are marked in `varying`."""
        groups: dict[tuple[int, int], list[str]] = {}
        for name, dims in shapes.items():
            declared, fixed = self._declared.get(name), self._fixed.get(name)
            for place in range(first, len(dims)):
                if fixed is not None and fixed[place]:
                    continue
                if declared is None or declared[place] == -1:
                    varying[name][place] = declared is not None
                    groups.setdefault((place, dims[place]), []).append(name)
        return groups


def one_line(error: BaseException) -> str:
    """The last line of an error that says something, with its class."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else ""
    return f"{type(error).__name__}: {text}"[:500]
