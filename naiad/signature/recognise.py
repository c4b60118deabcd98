"""What kind of file this is: its signature, or why it cannot be served and what to do."""

from __future__ import annotations

import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from naiad.errors import UnservableFile
from naiad.signature import formats, pythonmodel, savedmodel, source, state_dict
from naiad.signature.archive import Archive, BadArchive, is_archive
from naiad.signature.formats import Format
from naiad.signature.keras import read_keras
from naiad.signature.model import Signature
from naiad.signature.onnx import read_onnx
from naiad.signature.opcodes import NotReadable
from naiad.signature.pickles import is_pickle, read_pickle
from naiad.signature.pt2 import pt2_top, read_pt2
from naiad.signature.savedmodel import read_savedmodel
from naiad.signature.sklearn import read_skops
from naiad.signature.torch_class import read_class
from naiad.signature.torchscript import HEAD, read_torchscript

Parameters = Mapping[str, str]
_FILES: dict[str, Callable[[Path], Signature]] = {"ONNX": read_onnx}
_ARCHIVES: dict[str, Callable[[Path, Archive, Parameters], Signature]] = {
    formats.KERAS: lambda path, archive, _parameters: read_keras(path, archive),
    formats.SKOPS: read_skops,
}
"""Readers by the format's name."""

EXPORT = """export the whole model, in a program that imports its class:
  model = MyModel(); model.load_state_dict(torch.load("{file}")); model.eval()  # of weights, or
  model = torch.load("{file}", weights_only=False).eval()  # of a whole module
  torch.jit.trace(model, torch.zeros(1, 3, 224, 224)).save("model.pt")  # zeros of the shape that it takes"""
SERVED = "save the model as ONNX, TorchScript (torch.jit.trace(…).save(…)), torch.export, SavedModel, .keras or skops"


def read(path: Path, parameters: Parameters | None = None) -> Signature:
    """The signature of a model file; raises `UnservableFile` or, where there is none, `FileNotFoundError`.

    `parameters` are those of the model configuration: where a file holds several models, they say which.
    """
    if path.is_dir():
        return _read_folder(path, parameters or {})
    if path.name == savedmodel.FILE:
        return _read_folder(path.parent, parameters or {})
    _refuse_special(path)
    if path.suffix == ".py":
        return _read_source(path)
    head = _head(path)
    _refuse_by_head(path, head)
    if is_pickle(path.name, head):
        return read_pickle(path, head, parameters or {}, export=EXPORT.format(file=path.name))
    with path.open("rb") as file:
        if is_archive(file):
            return _read_zip(path, file, parameters or {})
    if head.startswith(b"PK"):
        raise UnservableFile(
            f"'{path.name}' is a zip archive that breaks off ({path.stat().st_size} bytes)",
            "copy it again and compare the sizes",
            kind="truncated",
            code="TRUNCATED",
        )
    format_ = formats.of_file(head)
    if format_ is not None:
        return _of_format(path, format_)
    raise UnservableFile(
        f"'{path.name}' is none of the formats that Naiad knows (it starts with {head[:8]!r})",
        SERVED,
        kind="unknown",
        code="UNKNOWN_FORMAT",
    )


def _read_zip(path: Path, file: BinaryIO, parameters: Parameters) -> Signature:
    try:
        return _read_archive(path, Archive(file), parameters)
    except (NotReadable, BadArchive, OSError) as error:
        raise UnservableFile(
            f"'{path.name}' is a damaged zip archive: {error}", "save it again", kind="truncated", code="TRUNCATED"
        ) from error


def _read_source(path: Path) -> Signature:
    """A `model.py`: what names Triton's class is for the Python backend, else it is to be a PyTorch module."""
    try:
        with path.open("rb") as file:
            text = file.read(source.MAX_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from error
    return pythonmodel.signature(path) if pythonmodel.CLASS.encode() in text else read_class(path)


def _of_format(path: Path, format_: Format) -> Signature:
    reader = _FILES.get(format_.name)
    if reader is None:
        raise _later(path, format_)
    return reader(path)


def _later(path: Path, format_: Format) -> UnservableFile:
    """The refusal of a format that is recognised and not served yet."""
    wait = f"{format_.name} models come with a later version of Naiad; export it as ONNX, which is served today"
    return UnservableFile(
        f"'{path.name}' is a model of format {format_.name}", format_.advice or wait, kind="later", code=format_.code
    )


def _read_folder(path: Path, parameters: Parameters) -> Signature:
    try:
        format_ = formats.of_folder(path)
        if format_ is not None and format_.name == formats.SAVEDMODEL:
            _refuse_pointers(path)
            return read_savedmodel(path, parameters)
    except OSError as error:
        raise _unreadable(path, error) from error
    if format_ is not None and format_.inner:
        return _read_inner(path, format_.inner)
    if format_ is not None:
        return _of_format(path, format_)
    raise UnservableFile(
        f"'{path.name}' is a folder of none of the formats that Naiad knows",
        "name the model's file",
        kind="unknown",
        code="UNKNOWN_FORMAT",
    )


def _read_inner(folder: Path, name: str) -> Signature:
    """The file in a model's folder."""
    inner = folder / name
    if inner.is_dir():
        raise _refused(folder, name)
    _refuse_link(folder, name)
    return read(inner)


def _refuse_link(folder: Path, name: str) -> None:
    """A link must not lead out of a folder (C2)."""
    if not (folder / name).resolve().is_relative_to(folder.resolve()):
        raise _refused(folder, name)


def _refused(folder: Path, name: str) -> UnservableFile:
    return UnservableFile(
        f"'{folder.name}/{name}' is no file of that folder",
        "put the file itself there",
        kind="link",
        code="PATH_REFUSED",
    )


def _refuse_pointers(folder: Path) -> None:
    """A SavedModel whose graph or weights were not fetched from Git LFS."""
    for file in (folder / savedmodel.FILE, *sorted((folder / "variables").glob("variables.*"))):
        if file.is_file():
            _refuse_lfs(file, _head(file))
    if (folder / savedmodel.FILE).is_file():
        _refuse_by_head(folder / savedmodel.FILE, _head(folder / savedmodel.FILE))


def read_only_entry(folder: Path, parameters: Parameters) -> tuple[str, Signature] | None:
    """The only entry of a version folder and its signature, whatever it is called; None where there are others.

    Raises `UnservableFile` where the folder holds, or itself is, a model in a format that is not served. Code is
    known by its name alone, so a `.py` file is none.
    """
    if not folder.is_dir():
        return None
    if formats.of_folder(folder) is not None:
        _read_folder(folder, {})
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    if len(entries) != 1:
        return None
    _refuse_link(folder, entries[0].name)
    signature = read(entries[0], parameters)
    return None if entries[0].suffix == ".py" else (entries[0].name, signature)


def _unreadable(path: Path, error: OSError) -> UnservableFile:
    return UnservableFile(
        f"'{path.name}' cannot be read: {error.strerror}",
        "it has to be a file that the user who serves may read",
        kind="unreadable",
        code="FILE_UNREADABLE",
    )


def _refuse_special(path: Path) -> None:
    """A pipe would be waited for, and a device need not end. Raises `FileNotFoundError` where there is nothing."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise UnservableFile(
            f"'{path.name}' is a pipe or a device, no file",
            "put the model's file itself there",
            kind="unreadable",
            code="FILE_UNREADABLE",
        )


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(formats.HEAD)
    except (IsADirectoryError, PermissionError) as error:
        raise _unreadable(path, error) from error


def _refuse_lfs(path: Path, head: bytes) -> None:
    if head.startswith(b"version https://git-lfs"):
        raise UnservableFile(
            f"'{path.name}' is a Git LFS pointer, not the file itself",
            "run 'git lfs pull' in the repository that it came from",
            kind="lfs-pointer",
            code="LFS_POINTER",
        )


def _refuse_by_head(path: Path, head: bytes) -> None:
    if not head:
        raise UnservableFile(f"'{path.name}' is empty", "copy the file again", kind="empty", code="EMPTY_FILE")
    _refuse_lfs(path, head)
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html")):
        raise UnservableFile(
            f"'{path.name}' is a web page, not a model",
            "download the file itself; the link led to a page about it",
            kind="html",
            code="NOT_A_MODEL",
        )


def _weights_only(path: Path, archive: Archive, top: str) -> UnservableFile:
    weights = state_dict.read_weights(archive, top)
    what = f"'{path.name}' holds weights only (a state dict"
    what += f": {state_dict.describe(weights)})" if weights is not None else ")"
    fix = state_dict.script(weights, path.name)
    if path.with_name("model.py").exists():
        fix = f'# or write backend: "pytorch" into config.pbtxt to serve the class in model.py with them\n{fix}'
    return UnservableFile(f"{what}, without the model's code", fix, kind="state-dict", code="WEIGHTS_ONLY")


def _read_archive(path: Path, archive: Archive, parameters: Parameters) -> Signature:
    names = archive.names
    top = pt2_top(names)
    if top is not None:
        return read_pt2(path.name, archive, top)
    format_ = formats.of_archive(frozenset(names))
    if format_ is not None and format_.name in _ARCHIVES:
        return _ARCHIVES[format_.name](path, archive, parameters)
    if format_ is not None:
        raise _later(path, format_)
    below: dict[str, set[str]] = {}
    for name in names:
        top, _, rest = name.partition("/")
        below.setdefault(top, set()).add(rest.partition("/")[0])
    for top in sorted(below):
        if {"code", "data.pkl"} <= below[top]:
            return read_torchscript(archive, top)
        if "data.pkl" in below[top]:
            data = archive.head(f"{top}/data.pkl", HEAD) or b""
            whole = b"__main__" in data or b"torch.nn.modules" in data
            if whole:
                what = f"'{path.name}' holds a pickled module, without the model's code"
                raise UnservableFile(what, EXPORT.format(file=path.name), kind="state-dict", code="UNSAFE_PICKLE")
            raise _weights_only(path, archive, top)
    raise UnservableFile(
        f"'{path.name}' is a zip archive but no model",
        SERVED,
        kind="unknown",
        code="UNKNOWN_FORMAT",
    )
