"""Makes the one record of a load that failed of whatever was raised, without where on this machine its files lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from naiad.errors import ConfigError, LoadError, UnservableFile
from naiad.server.interpreter import explained
from naiad.server.load_request import LoadRequest

T = TypeVar("T")


def guarded(request: LoadRequest, step: Callable[[], T]) -> T:
    """Runs a step; what it raises becomes the one record of a failure. Raises `LoadError`."""
    try:
        return step()
    except LoadError as error:
        error.cause = without_paths(error.cause, request.directory)
        explained(error, request.partial.message)
        raise
    except UnservableFile as error:
        raise failure(request, "signature", error.what, error.fix).coded(error.code) from error
    except ConfigError as error:
        raise failure(request, "configuration", error.what, error.fix).coded(error.code) from error
    except OSError as error:
        file = Path(error.filename).name if isinstance(error.filename, str) else ""
        cause = f"'{file}': {error.strerror}" if file else str(error.strerror)
        failed = failure(request, "repository", cause, "check the rights of the files")
        raise failed.coded("FILE_UNREADABLE") from error


def failure(request: LoadRequest, stage: str, cause: str, fix: str) -> LoadError:
    """A load that failed at this stage."""
    return LoadError(model=request.model, version=request.version, stage=stage, cause=cause, fix=fix)


def without_paths(text: str, directory: Path) -> str:
    """What a framework says of its files, without where on this machine they lie: clients read it (W69)."""
    for place in (directory, directory.resolve()):
        text = text.replace(f"{place}/", f"{directory.name}/").replace(str(place), directory.name)
    return text
