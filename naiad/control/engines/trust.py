"""Finds the files of a model that hold code: it runs only where the service says that it is trusted (D3, D4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from naiad.config import pbtxt
from naiad.control.diagnosis import Broken
from naiad.errors import ConfigError
from naiad.signature.archive import Archive, BadArchive, is_archive
from naiad.signature.pickles import TRUST

_PYTHON = "Python code, which runs when the model is loaded"
_PICKLE = "a pickle, which can run code when the model is loaded"
_NATIVE = "native code, which runs when the model is loaded"
_CODE = {".py": _PYTHON, ".pyc": _PYTHON, ".pkl": _PICKLE, ".pickle": _PICKLE, ".joblib": _PICKLE, ".so": _NATIVE}
_UNLISTED = "an archive whose content cannot be listed, so that it may hold code which runs when the model is loaded"
_COMPILED = "/data/aotinductor/"
"""Folder in a package of torch."""
_ENVIRONMENT = "EXECUTION_ENV_PATH"


def refuse_code(files: Iterable[Path], configuration: str | None) -> None:
    """Raises `Broken` that names the first file, or the part of the configuration, which brings code."""
    for file in files:
        what = _CODE.get(file.suffix.lower()) or _in_archive(file)
        if what is not None:
            raise _untrusted(f"'{file.name}' is {what}")
    if configuration is not None and _ENVIRONMENT in _parameters(configuration):
        raise _untrusted(f"config.pbtxt names {_ENVIRONMENT}, an interpreter that runs when the model is loaded")


def is_pickle(files: Sequence[Path], configuration: str | None) -> bool:
    """Whether the model is a pickle about which its configuration says nothing; one beside a `model.py` is not."""
    pickles = any(_CODE.get(file.suffix.lower()) == _PICKLE for file in files)
    code = any(file.suffix.lower() == ".py" for file in files)
    return pickles and not code and (configuration is None or TRUST not in _parameters(configuration))


def _parameters(configuration: str) -> frozenset[str]:
    """The names of the parameters, however they are spelled; none where the server will refuse the text anyway."""
    try:
        return frozenset(pbtxt.parse(configuration, "config.pbtxt").message.parameters)
    except ConfigError:
        return frozenset()


def _untrusted(what: str) -> Broken:
    fix = "read it, and if you trust it say so: naiad deploy --trust, or model.trust of the API"
    return Broken("CODE_NOT_TRUSTED", what, fix=fix)


def _in_archive(file: Path) -> str | None:
    """What an archive holds that is code: AOTInductor packs a shared library, or source and the commands to make it.

    The file may have any name, and be a program of torch.export beside it: torch loads both.
    """
    try:
        with file.open("rb") as opened:
            try:
                archive = Archive(opened)
            except BadArchive:  # readers differ in what they take: that of PyTorch opens archives that ours cannot list
                return _UNLISTED if is_archive(opened) else None
    except OSError:
        return None
    if archive.shifted:  # readers differ in where they look for the directory then
        return _UNLISTED
    native = any(name.endswith(".so") or _COMPILED in f"/{name}" for name in archive.names)
    return _NATIVE if native else None
