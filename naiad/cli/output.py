"""What commands print: results on stdout, progress on stderr, one exit code for each way to end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from enum import IntEnum, StrEnum
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from naiad.errors import NaiadError, NotFound

Result = TypeVar("Result")


class Exit(IntEnum):
    """How a command ended."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_READY = 3
    AUTH = 4
    NOT_FOUND = 5


class Form(StrEnum):
    """The form of a result."""

    TABLE = "table"
    JSON = "json"


Output = Annotated[Form, typer.Option("--format", "-o", help="table or json", show_default=False)]
State = Annotated[
    str | None, typer.Option("--state", help="state folder of the platform to talk to", show_default=False)
]


def progress(text: str) -> None:
    """One line of progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def result(document: Any, form: Form, lines: Callable[[], Sequence[str]]) -> None:
    """The result: as JSON, or as the lines that `lines` makes."""
    if form is Form.JSON:
        print(json.dumps(document, indent=2, ensure_ascii=False), flush=True)
        return
    for line in lines():
        print(line, flush=True)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns, without decoration."""
    widths = [max(len(row[index]) for row in [heads, *rows]) for index in range(len(heads))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in [heads, *rows]
    ]


def fail(message: str, code: Exit = Exit.ERROR) -> NoReturn:
    """Ends the command with one message on stderr."""
    print(f"error: {message}", file=sys.stderr, flush=True)
    raise typer.Exit(int(code))


def guarded(command: Callable[[], Result]) -> Result:
    """Runs a command's work; what it raises becomes one message and the exit code that fits."""
    from naiad.sdk.errors import ApiError, Missing, NotAllowed, NotReady

    try:
        return command()
    except Missing as error:
        fail(str(error), Exit.NOT_FOUND)
    except NotAllowed as error:
        fail(str(error), Exit.AUTH)
    except NotReady as error:
        for line in _explained(error):
            progress(line)
        fail(str(error), Exit.NOT_READY)
    except ApiError as error:
        fail(str(error), Exit.USAGE if error.status == 422 else Exit.ERROR)
    except NotFound as error:
        fail(str(error), Exit.NOT_FOUND)
    except NaiadError as error:
        fail(str(error))
    except OSError as error:
        where = f"'{error.filename}': " if error.filename and error.strerror else ""
        fail(where + (error.strerror or str(error)))
    except ValueError as error:
        fail(str(error))


def _explained(error: Any) -> list[str]:
    diagnosis = error.diagnosis
    if diagnosis is None:
        return []
    lines = [f"{diagnosis.code}: {diagnosis.title}", *(f"  {line}" for line in diagnosis.evidence)]
    for fix in diagnosis.fixes:
        more = f"   {fix.command}" if fix.command and fix.command not in fix.text else ""
        lines.append(f"  fix: {fix.text}{more}")
    return lines
