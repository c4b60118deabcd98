"""Certificates for tests, made by openssl."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Pair:
    """A certificate for localhost that signs itself, and its key."""

    cert: Path
    key: Path


def make(folder: Path, name: str) -> Pair:
    """A new pair."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    pair = Pair(folder / f"{name}.pem", folder / f"{name}.key")
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-keyout", str(pair.key), "-out", str(pair.cert), "-days", "2"]
    subprocess.run([*command, *subject, *files], check=True, capture_output=True)
    return pair
