"""API keys: how one is made, recognised, digested and written down as a row of the access snapshot."""

from __future__ import annotations

import re
import secrets
import string
from collections.abc import Sequence

from blake3 import blake3

SCOPES = ("infer", "manage", "metrics", "admin")

_ALPHABET = string.digits + string.ascii_letters
_ID_LENGTH = 8
_SECRET_LENGTH = 32
_KEY = re.compile(rf"nk_([0-9A-Za-z]{{{_ID_LENGTH}}})[0-9A-Za-z]{{{_SECRET_LENGTH}}}", re.ASCII)


class Secret:
    """A secret that prints as `***`, so that no log, traceback or dump shows it (H3)."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself, for the one place that hands it on."""
        return self._value

    def __repr__(self) -> str:
        return "***"


def make_key() -> Secret:
    """A new random key: `nk_`, an 8-character id and a 32-character secret (190 bits)."""
    return Secret("nk_" + "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH + _SECRET_LENGTH)))


def key_id(key: str) -> str | None:
    """The id by which a key is found, or None if the text does not have a key's form."""
    match = _KEY.fullmatch(key)
    return match.group(1) if match else None


def digest(key: str) -> str:
    """The BLAKE3 digest, in hex, under which a whole key is stored (A5)."""
    return blake3(key.encode("utf-8")).hexdigest()


def row(
    key: Secret, *, scopes: Sequence[str], services: Sequence[str], expires: int | None = None
) -> dict[str, object]:
    """One row of the access snapshot and of a `--keys-file`: the digest, never the key."""
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown:
        raise ValueError(f"unknown scope '{unknown[0]}'; known: {', '.join(SCOPES)}")
    text = key.reveal()
    identifier = key_id(text)
    if identifier is None:
        raise ValueError("a key is 'nk_' and 40 letters and digits")
    return {
        "id": identifier,
        "digest": digest(text),
        "scopes": list(scopes),
        "services": list(services),
        "expires": expires,
    }
