"""Finds the files of a model that hold code: it runs only where the service says that it is trusted (D4)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from naiad.control.diagnosis import Broken

_CODE = {".py": "Python code", ".pyc": "Python code"}


def refuse_code(files: Iterable[Path]) -> None:
    """Raises `Broken` that names the first file which holds code."""
    for file in files:
        what = _CODE.get(file.suffix.lower())
        if what is not None:
            raise Broken(
                "CODE_NOT_TRUSTED",
                f"'{file.name}' is {what}, which runs when the model is loaded",
                fix="read it, and if you trust it say so: naiad deploy --trust, or model.trust of the API",
            )
