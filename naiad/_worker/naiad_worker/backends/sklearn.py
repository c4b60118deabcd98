"""scikit-learn estimators: rows of features in, labels, probabilities or values out."""

from __future__ import annotations

import os
import re
import warnings
from typing import Any

import numpy as np

from naiad_worker.backends import LoadFailure, LoadSpec
from naiad_worker.parameters import name_unused, parameter
from naiad_worker.tensors import BF16, BYTES, CODES, NUMPY, Bf16Array, floats

FORKS = True

METHODS = ("decision_function", "predict", "predict_proba", "transform")
_TEXT = ("CountVectorizer", "HashingVectorizer", "TfidfVectorizer")
_TRUST = "naiad.trust_pickle"
_TRUSTED_TYPES, _METHOD = "trusted_types", "method"
_OWN = re.compile(r"Can't get attribute '(\w+)' on <module '(?:__main__|naiad_worker[\w.]*)'")
"""What a pickle's error says that names something of `__main__`, the program which saved it."""
_FROM = re.compile(r"(<module '[^']*') from '[^']*'")
_TO_SAFE = "save it with skops.io.dump, convert it to ONNX, or write parameters 'naiad.trust_pickle' into config.pbtxt"


def preimport() -> None:
    """Imports scikit-learn and what opens its files; OpenBLAS starts no threads, as the server's variables say."""
    import joblib  # noqa: F401
    import sklearn  # noqa: F401
    import skops.io  # noqa: F401


def _load(spec: LoadSpec) -> Any:
    """The estimator; a file that could run code is opened only if the configuration trusts it."""
    path = os.path.join(spec.directory, spec.file)
    with open(path, "rb") as file:
        archive = file.read(2) == b"PK"
    try:
        return _from_skops(spec, path) if archive else _from_pickle(spec, path)
    except (ImportError, LoadFailure, MemoryError):
        raise
    except Exception as error:  # a file may make its library raise anything
        own = _OWN.match(str(error))
        if own is not None:
            raise LoadFailure(
                f"'{spec.file}' needs '{own[1]}', which the program that saved it defined itself",
                "put it into a module, install that where the model runs, and save the estimator again",
                "MISSING_MODULE",
            ) from error
        lines = [line.strip() for line in _FROM.sub(r"\1", str(error)).splitlines() if line.strip()]
        what = lines[0][:500] if lines else repr(error)[:500]
        raise LoadFailure(
            f"scikit-learn cannot load '{spec.file}': {type(error).__name__}: {what}",
            "save it again with the version of scikit-learn that is installed here",
        ) from error


def _from_skops(spec: LoadSpec, path: str) -> Any:
    import skops.io

    listed = {name.strip() for name in parameter(spec.config, _TRUSTED_TYPES).split(",") if name.strip()}
    found = sorted(skops.io.get_untrusted_types(file=path))
    unknown = [name for name in found if name not in listed]
    if unknown:
        names = ", ".join(unknown[:20]) + (f" and {len(unknown) - 20} more" if len(unknown) > 20 else "")
        raise LoadFailure(
            f"'{spec.file}' holds types that skops does not trust: {names}",
            "if you trust them in this file, list them in config.pbtxt: parameters { key: "
            f'"{_TRUSTED_TYPES}" value {{ string_value: "{",".join(found[:20])}" }} }}',
            "UNTRUSTED_TYPES",
        )
    return skops.io.load(path, trusted=found)


def _from_pickle(spec: LoadSpec, path: str) -> Any:
    if parameter(spec.config, _TRUST).lower() != "true":
        raise LoadFailure(f"'{spec.file}' is a pickle, which could run any code", _TO_SAFE, "UNSAFE_PICKLE")
    import joblib

    return joblib.load(path)


def _methods_of(model: Any, file: str) -> list[str]:
    """The methods that answer requests; raises `LoadFailure` where there is none."""
    there = [name for name in METHODS if hasattr(model, name)]
    if not there:
        raise LoadFailure(
            f"'{file}' holds a {type(model).__name__}, which neither predicts nor transforms",
            "save a fitted estimator or a pipeline that ends with one",
            "NOT_A_MODEL",
        )
    return there


def _refuse_unfitted(model: Any, file: str) -> None:
    """Raises `LoadFailure` for an estimator that was saved before it was fitted."""
    import sklearn.exceptions
    import sklearn.utils.validation

    try:
        sklearn.utils.validation.check_is_fitted(model)
    except sklearn.exceptions.NotFittedError as error:
        raise LoadFailure(
            f"'{file}' holds a {type(model).__name__} that was never fitted",
            "save the estimator after fit()",
            "NOT_A_MODEL",
        ) from error
    except TypeError:  # no estimator of scikit-learn: nothing is known
        return


def _refuse_tables(model: Any) -> None:
    """Raises `LoadFailure` for a model that chooses its columns by name: rows come without names."""
    names = sorted({name for part in _parts(model) for name in _chosen_by_name(part)})
    if names:
        raise LoadFailure(
            f"the model chooses columns by name ({', '.join(names[:10])}), and rows come without names",
            "convert it to ONNX, which gets an input for each column: skl2onnx.to_onnx(model, table[:1], "
            "options={'zipmap': False}); or fit it with the columns' positions",
            "IO_UNSUPPORTED",
        )


def _parts(model: Any) -> list[Any]:
    """The model and the estimators that see its rows as they come, at any depth."""
    found, waiting = [], [model]
    while waiting:
        part = waiting.pop()
        found.append(part)
        if type(part).__name__ == "Pipeline":
            waiting += [estimator for _, estimator in part.steps[:1]]
        elif type(part).__name__ == "FeatureUnion":
            waiting += [estimator for _, estimator in part.transformer_list]
        else:
            waiting += [part.best_estimator_] if hasattr(part, "best_estimator_") else []
    return found


def _chosen_by_name(part: Any) -> list[str]:
    """The columns that a ColumnTransformer names; none of any other estimator, or where it takes them by place."""
    if type(part).__name__ != "ColumnTransformer":
        return []
    chosen = [columns for _, _, columns in getattr(part, "transformers_", [])]
    flat = [name for columns in chosen for name in ([columns] if isinstance(columns, str) else _listed(columns))]
    return [str(name) for name in flat if isinstance(name, str)]


def _listed(columns: Any) -> list[Any]:
    return list(columns) if isinstance(columns, (list, tuple, np.ndarray)) else []


def describe(spec: LoadSpec) -> dict[str, Any]:
    """The input of a file that the server does not read, as the estimator has it; raises `LoadFailure`."""
    model = _load(spec)
    _methods_of(model, spec.file)
    _refuse_tables(model)
    if _takes_texts(model):
        return {"input": [{"name": "input", "type": "texts", "datatype": "BYTES", "dims": [-1, 1]}]}
    count = getattr(model, "n_features_in_", None)
    if not isinstance(count, (int, np.integer)) or count < 1:
        _refuse_unfitted(model, spec.file)
        raise LoadFailure(
            f"'{spec.file}' holds a {type(model).__name__} that does not say how many features it takes",
            'write it into config.pbtxt: max_batch_size: 32 input { name: "input" data_type: TYPE_FP32 dims: [ N ] }',
            "CONFIG_INVALID",
        )
    return {"input": [{"name": "input", "type": f"{count} features", "datatype": "FP32", "dims": [-1, int(count)]}]}


class Backend:
    """One loaded estimator."""

    def __init__(self, spec: LoadSpec) -> None:
        import threadpoolctl

        # Names of features are those of a table; requests bring plain arrays.
        warnings.filterwarnings("ignore", message=".*does not have valid feature names")
        self._limits = threadpoolctl.threadpool_limits(limits=max(1, spec.threads))
        self._model = _load(spec)
        _refuse_tables(self._model)
        self._file = spec.file
        self._texts = _takes_texts(self._model)
        self._threads(spec.threads)
        self._calls = self._methods(parameter(spec.config, _METHOD))
        name_unused(spec.config, "sklearn", (_METHOD, _TRUSTED_TYPES))
        # What the configuration writes counts, for the file tells no datatypes.
        written = spec.config.get("output", [])
        self._datatypes = {tensor["name"]: tensor.get("data_type", "")[5:] for tensor in written}
        self._outputs: list[tuple[int, str, str, bool]] = []

    def _threads(self, count: int) -> None:
        """Estimators that were told to use every processor use as many threads as this worker may."""
        if not hasattr(self._model, "get_params"):
            return
        told = {key: value for key, value in self._model.get_params(deep=True).items() if key.endswith("n_jobs")}
        own = {key: count for key, value in told.items() if value is not None}
        if own:
            self._model.set_params(**own)

    def _methods(self, asked: str) -> dict[str, str]:
        """Output name → method of the estimator; raises `LoadFailure`."""
        import sklearn.base

        there = _methods_of(self._model, self._file)
        if asked and asked not in there:
            fix = f"write one of {', '.join(there)} as parameter 'method', or leave it out"
            raise LoadFailure(f"a {type(self._model).__name__} has no method '{asked}'", fix, "CONFIG_INVALID")
        classifies = "predict" in there and sklearn.base.is_classifier(self._model)
        names = {"predict": "label", "predict_proba": "probabilities"} if classifies else {}
        if asked:
            return {names.get(asked, "output"): asked}
        if classifies and isinstance(getattr(self._model, "classes_", None), list):
            return {"label": "predict"}  # several targets: probabilities would be a list of arrays
        if classifies:
            return {name: method for method, name in names.items() if method in there}
        return {"output": next(name for name in ("predict", "transform", *there) if name in there)}

    def serve(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Fixes which method gives which output: by name, else by its place."""
        if len(inputs) != 1:
            raise LoadFailure(f"expected one input, the features of each row, got {len(inputs)}", "", "IO_MISMATCH")
        names = list(self._calls)
        chosen = []
        for index, tensor in enumerate(outputs):
            name = tensor["name"] if tensor["name"] in names else names[index] if index < len(names) else ""
            if not name:
                raise LoadFailure(
                    f"output '{tensor['name']}': the model gives {', '.join(names)}", "name one of these", "IO_MISMATCH"
                )
            chosen.append((index, name, tensor["datatype"], not tensor["dims"]))
        self._outputs = chosen

    def _rows(self, array: Any) -> Any:
        if isinstance(array, Bf16Array):
            return floats(array)
        if self._texts:
            return [element.decode() if isinstance(element, bytes) else str(element) for element in array.reshape(-1)]
        if array.dtype == object:
            return np.array(
                [element.decode() if isinstance(element, bytes) else element for element in array.reshape(-1)],
                dtype=object,
            ).reshape(array.shape)
        return array

    def _run(self, name: str, rows: Any, datatype: str) -> Any:
        """One output [rows, …]; a single value of each row is a column."""
        result = getattr(self._model, self._calls[name])(rows)
        if isinstance(result, list):
            raise ValueError(f"{self._calls[name]} gives a list of {len(result)} arrays; leave this output out")
        if hasattr(result, "toarray"):  # a sparse matrix
            result = result.toarray()
        array = _as(np.asarray(result), datatype)
        return array.reshape(-1, 1) if array.ndim == 1 else array

    def probe(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name for the one input."""
        (array,) = inputs.values()
        rows = self._rows(array)
        return {name: self._run(name, rows, self._datatypes.get(name, "")) for name in self._calls}

    def execute(self, inputs: dict[int, Any]) -> tuple[list[tuple[int, Any]], bytes]:
        """Output arrays by index."""
        rows = self._rows(inputs[0])
        outputs = []
        for index, name, datatype, flat in self._outputs:
            array = self._run(name, rows, datatype)
            outputs.append((index, array.reshape(-1) if flat else array))
        return outputs, b""

    def finalize(self) -> None:
        """Drops the estimator."""
        del self._model


def _takes_texts(model: Any) -> bool:
    """Whether the first step turns texts into features."""
    while type(model).__name__ == "Pipeline" and getattr(model, "steps", None):
        model = model.steps[0][1]
    return type(model).__name__ in _TEXT


def _as(array: Any, datatype: str) -> Any:
    """An array in the datatype that was asked for, else by convention: FP32 for fractions, INT64 for whole numbers."""
    code = CODES.get(datatype)
    kind = array.dtype.kind
    if code is None:
        code = {"f": CODES["FP32"], "i": CODES["INT64"], "u": CODES["INT64"], "b": CODES["BOOL"]}.get(kind, BYTES)
    if code == BYTES:
        return array.astype(object)
    if kind not in "fiub" or code == BF16:
        raise TypeError(f"an output of {array.dtype} cannot be given as {datatype}")
    return np.ascontiguousarray(array, dtype=NUMPY[code])
