"""What can be wrong with an environment.

NaiadError
├── WrongSpecification   the wish itself cannot be met (names the field)
├── BuildFailed          the resolver or the installer refused (keeps its words)
├── Stopped              the build was ended because its process ends
├── BadArchive           an archive that is not extracted (says which member and why)
├── NoSuchEnvironment    nothing of that name, and what there is instead
├── EnvironmentExists    the name is taken
├── EnvironmentBusy      it is in use or being built
└── Unfit                an interpreter that cannot run a worker (code, what to add)
"""

from __future__ import annotations

from naiad.errors import NaiadError, NotFound


class WrongSpecification(NaiadError):
    """A field of a specification is wrong; the message names it, `field` is its name alone."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class BuildFailed(NaiadError):
    """The resolver or the installer refused; the message is its own words."""

    def __init__(self, step: str, words: str) -> None:
        super().__init__(f"{step} failed: {words}" if words else f"{step} failed without a word")
        self.step = step
        self.words = words


class Stopped(NaiadError):
    """The build was ended because its process ends."""


class BadArchive(NaiadError):
    """An archive that is refused as a whole; nothing of it stays on the disk."""


class NoSuchEnvironment(NotFound):
    """Nothing of that name; the message says what there is instead."""


class EnvironmentExists(NaiadError):
    """The name is taken by an environment made of something else."""


class EnvironmentBusy(NaiadError):
    """It is in use or being built, so it can be neither removed nor built now."""


class Unfit(NaiadError):
    """An interpreter that cannot run a worker: a stable code, what is wrong, and what to do."""

    def __init__(self, code: str, message: str, fix: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.fix = fix
