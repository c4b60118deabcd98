"""The error tree of the server and the platform; each class builds its own message.

NaiadError
├── ConfigError            a model configuration, a setting or an option is wrong
├── UnservableFile         a model file that cannot be served as it is
├── LoadError              a model version could not be made ready
└── NotFound               something named does not exist
"""

from __future__ import annotations


class NaiadError(Exception):
    """Root of all errors that carry a message for a person."""


class ConfigError(NaiadError):
    """A wrong configuration: says where (file, line, column or field), what was expected and what came."""


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
    """One record of why a model version could not be loaded: {model, version, stage, cause, fix}."""

    def __init__(self, *, model: str, version: int | None, stage: str, cause: str, fix: str = "") -> None:
        super().__init__(cause)
        self.model = model
        self.version = version
        self.stage = stage
        self.cause = cause
        self.fix = fix

    def record(self) -> dict[str, object]:
        """The failure as one log record's fields."""
        return {
            "model": self.model,
            "version": self.version,
            "stage": self.stage,
            "cause": self.cause,
            "fix": self.fix,
        }


class NotFound(NaiadError):
    """Something named does not exist; the message names it and what exists instead."""
