"""What a version folder holds: the backend that runs it and what its file says, or why it cannot be served."""

from __future__ import annotations

from pathlib import Path

from naiad.backends import registry
from naiad.backends.base import Backend
from naiad.config.pbtxt import PartialConfig
from naiad.errors import ConfigError, UnservableFile
from naiad.signature import pythonmodel
from naiad.signature.model import Signature
from naiad.signature.pickles import TRUST
from naiad.signature.recognise import read, read_only_entry


def backend_of(partial: PartialConfig, folder: Path, *, name: str) -> Backend:
    """The backend of a model; raises `ConfigError`, or `UnservableFile` for a format that none serves."""
    try:
        return registry.choose(partial.message, folder, name=name)
    except ConfigError as error:
        only = read_only_entry(folder, parameters_of(partial)) if error.code == "PATH_NOT_FOUND" else None
        if only is None or partial.message.default_model_filename not in ("", only[0]):
            raise
        file, signature = only
        return registry.holding(signature.backend, file)


def signature_of(partial: PartialConfig, backend: Backend, path: Path) -> Signature | None:
    """What the model file says; None where the backend reads none. Raises `UnservableFile` or `ConfigError`."""
    if backend.describes:
        return pythonmodel.signature(path)
    if not backend.reads_signature:
        return None
    signature = read(path, parameters_of(partial))
    agree_on_backend(signature, backend, path.name)
    return signature


def agree_on_backend(signature: Signature, backend: Backend, file: str) -> None:
    """Raises `UnservableFile` where the file is of another backend than the one that is to run it."""
    if signature.backend != backend.name:
        raise UnservableFile(
            f"'{file}' is of format {signature.format}, which backend '{signature.backend}' runs, "
            f"and not '{backend.name}'",
            f'write backend: "{signature.backend}" into config.pbtxt, or put the right file there',
            kind="backend",
            code="BACKEND_MISMATCH",
        )


def parameters_of(partial: PartialConfig) -> dict[str, str]:
    """Parameters by name. Trust in a pickle counts only in a file of the repository: no client of a server gives it."""
    told = {name: value.string_value for name, value in partial.message.parameters.items()}
    if not partial.source.endswith(".pbtxt"):
        told.pop(TRUST, None)
    return told
