"""The error tree of the server and the platform; each class builds its own message.

NaiadError
├── ConfigError            a model configuration, a setting or an option is wrong
├── UnservableFile         a model file that cannot be served as it is
├── LoadError              a model version could not be made ready
└── NotFound               something named does not exist
"""

from __future__ import annotations

import re

_CODED = re.compile(r" \(([A-Z][A-Z0-9]+(?:_[A-Z0-9]+)+)\)(?:; ([^;]*))?$")


def split_code(text: str) -> tuple[str, str, str]:
    """A message as (what, diagnosis code, fix): `… (IO_MISMATCH)` or `… (LAYOUT_NO_VERSION); move it`."""
    found = _CODED.search(text)
    return (text[: found.start()], found[1], found[2] or "") if found else (text, "", "")


class NaiadError(Exception):
    """Root of all errors that carry a message for a person."""


class ConfigError(NaiadError):
    """A wrong configuration: says where (file, line, column or field), what was expected and what came.

    A message may end with its diagnosis code in brackets; without one the code is `CONFIG_INVALID`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.what, code, self.fix = split_code(message)
        self.code = code or "CONFIG_INVALID"


class UnservableFile(NaiadError):
    """A file that cannot be served: says what it is and what to do about it.

    `kind` is a short word (`state-dict`, `pickle`, `lfs-pointer`, `truncated`, `unknown`); `code` the diagnosis code of
    the platform (`WEIGHTS_ONLY`, `UNSAFE_PICKLE` …).
    """

    def __init__(self, what: str, fix: str, *, kind: str, code: str) -> None:
        super().__init__(f"{what}; {fix}" if fix else what)
        self.what = what
        self.fix = fix
        self.kind = kind
        self.code = code


class LoadError(NaiadError):
    """One record of why a model version could not be loaded: {model, version, stage, code, cause, fix}.

    `code` is the diagnosis code of the platform; a cause that ends with one in brackets tells it.
    """

    def __init__(self, *, model: str, version: int | None, stage: str, cause: str, fix: str = "") -> None:
        super().__init__(cause)
        self.model = model
        self.version = version
        self.stage = stage
        self.cause, code, told = split_code(cause)
        self.code = code or "LOAD_FAILED"
        self.fix = fix or told

    def coded(self, code: str) -> LoadError:
        """The same, with the code of what failed; "" changes nothing."""
        self.code = code or self.code
        return self

    @property
    def reason(self) -> str:
        """The failure in one line; what is wrong with the model's directory needs no word for its stage (W66)."""
        stage = "" if self.stage == "repository" else f"{self.stage}: "
        general = self.code == "LOAD_FAILED" or (not stage and self.code == "CONFIG_INVALID")
        code = "" if general else f" ({self.code})"
        return f"{stage}{self.cause}{code}" + (f" (fix: {self.fix})" if self.fix else "")

    def record(self) -> dict[str, object]:
        """The failure as one log record's fields."""
        return {
            "model": self.model,
            "version": self.version,
            "stage": self.stage,
            "code": self.code,
            "cause": self.cause,
            "fix": self.fix,
        }


class NotFound(NaiadError):
    """Something named does not exist; the message names it and what exists instead."""
