"""Certificates for tests, made by openssl."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_CONFIGURATION = """
[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = {name}
[extensions]
basicConstraints = critical, CA:{authority}
subjectAltName = DNS:localhost, IP:127.0.0.1
"""


@dataclass(frozen=True)
class Pair:
    """A certificate for localhost and its key."""

    cert: Path
    key: Path


def make(folder: Path, name: str, *, signer: Pair | None = None, authority: bool = False) -> Pair:
    """A new pair that signs itself, or that an authority signs."""
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl; install: sudo apt-get install openssl")
    pair, configuration = Pair(folder / f"{name}.pem", folder / f"{name}.key"), folder / f"{name}.cnf"
    configuration.write_text(_CONFIGURATION.format(name=name, authority=str(authority).upper()))
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-config", str(configuration), "-keyout", str(pair.key), "-out", str(pair.cert), "-days", "2"]
    if signer is not None:
        command += ["-CA", str(signer.cert), "-CAkey", str(signer.key)]
    subprocess.run(command, check=True, capture_output=True)
    return pair
