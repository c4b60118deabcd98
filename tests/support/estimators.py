"""scikit-learn estimators, fitted in the test: the same data each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

WHY = "scikit-learn or skops is not installed: pip install 'naiad[sklearn]'"
TREE = "sklearn.tree._tree.Tree"
"""The type of fitted trees, which skops does not trust."""


def need() -> None:
    """Skips where the framework is missing."""
    pytest.importorskip("sklearn", reason=WHY)
    pytest.importorskip("skops", reason=WHY)


def iris() -> tuple[Any, Any]:
    """(rows as FP32 [150, 4], classes as INT64 [150])."""
    import numpy as np
    from sklearn.datasets import load_iris

    rows, classes = load_iris(return_X_y=True)
    return rows.astype(np.float32), classes


def species(classes: Any) -> Any:
    """The classes as texts."""
    import numpy as np

    return np.array(["setosa", "versicolor", "virginica"])[classes]


def save(model: Any, folder: Path, file: str = "model.skops") -> Path:
    """The estimator in a version folder, as the file's name says."""
    import joblib
    import skops.io

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file
    if path.suffix == ".skops":
        skops.io.dump(model, path)
    else:
        joblib.dump(model, path, compress=3 if path.suffix == ".joblib" else 0)
    return path


def parameters(**told: str) -> str:
    """Parameters as config.pbtxt has them; `__` in a name is a dot."""
    lines = (
        f'parameters {{ key: "{name.replace("__", ".")}" value {{ string_value: "{value}" }} }}'
        for name, value in told.items()
    )
    return "\n".join(lines)
