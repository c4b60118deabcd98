"""What an environment shall hold: the text of a requirements or environment file, checked before anything runs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from naiad.environments import conda_file
from naiad.environments.errors import WrongSpecification

MANAGERS = ("PIP", "CONDA")
OLDEST = (3, 9)
MOST_TEXT = 256 << 10
_PYTHON = re.compile(r"3\.(\d{1,3})(\.\d{1,3})?", re.ASCII)
_REQUIREMENT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)
_CHANNEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9._-]+)*", re.ASCII)
_FOLDER = re.compile(r"file://(/[A-Za-z0-9._+~-]+)+/?", re.ASCII)
# What two readers of URLs may read in two ways has no place in it: users, '\\', queries, fragments.
_URL = re.compile(r"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~+%/-]*)?", re.ASCII)
_LICENSED = {"defaults", "main", "free", "r", "pro", "msys2", "anaconda", "pkgs"}
_ANACONDA = re.compile(r"https?://(?:conda\.|repo\.)?anaconda\.(?:org|com)(?::\d+)?/+(.*)", re.IGNORECASE)
_HASH = re.compile(r"\s--hash=sha(256|384|512):[0-9a-f]+")
_INDEX, _LINKS = ("--index-url", "index_url"), ("--find-links", "find_links")
_INSTEAD_OF_OPTION = {
    "-i": _INDEX,
    "--index-url": _INDEX,
    "--extra-index-url": ("--extra-index-url", "extra_index_urls"),
    "-f": _LINKS,
    "--find-links": _LINKS,
    "--no-binary": ("--allow-sdist", "allow_sdist"),
}
"""What stands for an option of pip: that of `naiad env create`, and the field of the API."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Specification:
    """The wish for an environment."""

    manager: str = "PIP"
    """`PIP` (a requirements.txt) or `CONDA` (an environment.yaml)."""
    text: str
    python: str = ""
    """`3.12`, `3.12.3` or the path of an interpreter; "" takes the version that Naiad itself runs on."""
    index_url: str = ""
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    """Folders or pages that list packages."""
    channels: tuple[str, ...] = ()
    """Conda channels; conda-forge where neither this nor the file names one."""
    allow_sdist: bool = False
    """Whether packages may be built from source, which runs their code while building."""

    def document(self) -> dict[str, Any]:
        """The fields as a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def of_document(cls, document: dict[str, Any]) -> Specification:
        """The reverse of `document`."""
        lists = ("extra_index_urls", "find_links", "channels")
        fields: dict[str, Any] = {name: tuple(v) if name in lists else v for name, v in document.items()}
        return cls(**fields)


def check(specification: Specification) -> None:
    """Raises `WrongSpecification` naming the first field that cannot be met."""
    if specification.manager not in MANAGERS:
        raise WrongSpecification("manager", f"expected {' or '.join(MANAGERS)}, got '{specification.manager}'")
    if len(specification.text) > MOST_TEXT:
        raise WrongSpecification("spec", f"expected at most {MOST_TEXT} characters, got {len(specification.text)}")
    if specification.python and "/" not in specification.python:
        check_python(specification.python)
    for field in ("index_url", "extra_index_urls"):
        value = getattr(specification, field)
        for url in (value,) if isinstance(value, str) else value:
            if url:
                _check_url(field, url)
    for place in specification.find_links:
        if "://" in place:
            _check_url("find_links", place)
        elif not Path(place).is_absolute():
            raise WrongSpecification("find_links", f"expected a URL or an absolute path, got '{place}'")
    check_channels(specification.channels)
    if specification.manager == "PIP":
        check_requirements(specification.text)
    else:
        file = conda_file.read(specification.text)
        check_channels(file.channels)
        check_requirements("\n".join(file.pip))


def check_python(text: str) -> None:
    """Raises `WrongSpecification` where this is not the version of a Python that a worker can run on."""
    match = _PYTHON.fullmatch(text)
    if match is None:
        raise WrongSpecification("python", f"expected a version such as 3.12 or 3.12.3, got '{text[:40]}'")
    if int(match[1]) < OLDEST[1]:
        raise WrongSpecification("python", f"expected 3.{OLDEST[1]} or newer, got {text}")


def check_channels(channels: tuple[str, ...]) -> None:
    """Raises `WrongSpecification` for a channel that cannot be one, or that needs a licence."""
    for channel in channels:
        is_local = _CHANNEL.fullmatch(channel) or _FOLDER.fullmatch(channel)
        if not (is_local or _is_url(channel)) or ".." in channel.split("/"):
            text = f"expected a channel's name, https://HOST/PATH or file:///FOLDER, got '{channel[:80]}'"
            raise WrongSpecification("channels", text)
        hosted = _ANACONDA.fullmatch(channel)
        name = hosted[1] if hosted else channel
        if "repo.anaconda.com" in channel.lower() or name.split("/")[0].lower() in _LICENSED:
            raise WrongSpecification(
                "channels", f"'{channel}' may need a licence of its owner; use conda-forge or a channel of your own"
            )


def check_requirements(text: str) -> None:
    """Raises `WrongSpecification` with the line that is refused: options, paths, URLs (D7)."""
    for number, line in requirement_lines(text):
        if not line.replace("\t", " ").isprintable():
            raise WrongSpecification("spec", f"line {number}: expected text, got a control character: {line[:80]!a}")
        bare = _HASH.sub("", line)
        option = bare.split()[0].partition("=")[0] if bare.startswith("-") else ""
        if option:
            instead = _INSTEAD_OF_OPTION.get(option)
            advice = "write the requirements themselves"
            if instead:
                advice = f"give it to the command as {instead[0]}, to the API as the field '{instead[1]}'"
            raise WrongSpecification("spec", f"line {number}: option '{option}' is not taken; {advice}")
        if "@" in bare.split(";")[0] or "://" in bare or "/" in bare.split(";")[0] or bare.startswith("."):
            raise WrongSpecification(
                "spec",
                f"line {number}: '{bare[:80]}' names a file or URL; name a version, and where it lies in find_links",
            )
        if name_of(bare) is None or " --" in bare:
            words = f"line {number}: expected a requirement such as six>=1.16, got '{bare[:80]}'"
            raise WrongSpecification("spec", words)


def requirement_lines(text: str) -> Iterator[tuple[int, str]]:
    """Line number and text of each requirement: without comments, continued lines as one."""
    started, joined = 0, ""
    for number, raw in enumerate(text.splitlines(), 1):
        started = started or number
        line = re.sub(r"(^|\s)#.*$", "", raw).rstrip()
        if line.endswith("\\"):
            joined += line[:-1] + " "
            continue
        whole = (joined + line).strip()
        if whole:
            yield started, whole
        started, joined = 0, ""
    if joined.strip():
        yield started, joined.strip()


def name_of(requirement: str) -> str | None:
    """The normalised name of the package that a requirement asks for; None if it has none."""
    match = _REQUIREMENT.match(requirement)
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else None


def _check_url(field: str, url: str) -> None:
    if not _is_url(url):
        extra = "; a password goes into ~/.netrc" if "@" in url else ""
        raise WrongSpecification(field, f"expected https://HOST/PATH without user, query or fragment{extra}")


def _is_url(text: str) -> bool:
    try:
        return _URL.fullmatch(text) is not None and urlsplit(text).port != 0
    except ValueError:  # an address or a port that is none
        return False
