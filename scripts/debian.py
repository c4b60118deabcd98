"""Installs the Debian packages that the tests call, where it may; else names the line and lets those tests skip.

`debian.py` brings what small tests need and completes the toolchains whose compilers are there;
`debian.py clients` brings all of them.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable

# A command or a file that tests look for, and the package that brings it.
SMALL = {"curl": "curl", "openssl": "openssl", "strace": "strace", "/usr/lib/*/libb64.so.0d": "libb64-0d"}
COMPILERS = {
    "cpp": {"g++": "g++", "cmake": "cmake", "make": "make"},
    "go": {"go": "golang-go"},
    "java": {"javac": "openjdk-17-jdk-headless", "mvn": "maven"},
    "node": {"node": "nodejs", "npm": "npm"},
}
LIBRARIES = {
    "cpp": {
        "pkg-config": "pkg-config",
        "grpc_cpp_plugin": "protobuf-compiler-grpc",
        "protoc": "protobuf-compiler",
        "/usr/include/grpcpp/grpcpp.h": "libgrpc++-dev",
        "/usr/include/google/protobuf/message.h": "libprotobuf-dev",
        "/usr/include/nlohmann/json.hpp": "nlohmann-json3-dev",
        "/usr/include/*/curl/curl.h": "libcurl4-openssl-dev",
    },
    "go": {"protoc": "protobuf-compiler"},
    "java": {},
    "node": {},
}


def missing(wanted: dict[str, str]) -> list[str]:
    """Return the packages of what is not there."""
    return sorted({name for probe, name in wanted.items() if not (shutil.which(probe) or glob.glob(probe))})


def toolchain(language: str) -> list[str]:
    """Return the packages that the example in this language lacks."""
    return missing({**COMPILERS[language], **LIBRARIES[language]})


def wanted(*, clients: bool) -> Iterable[str]:
    """Yield each package to install."""
    yield from missing(SMALL)
    for language, compilers in COMPILERS.items():
        if clients or not missing(compilers):
            yield from toolchain(language)


def install_line(packages: Iterable[str]) -> list[str]:
    """Return the command that installs packages."""
    return ["apt-get", "install", "-y", "--no-install-recommends", *packages]


def may_install() -> bool:
    """Say whether this is Debian, and we are root."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def main() -> None:
    """Install what is missing as root on Debian; anywhere else only say what would be installed."""
    packages = sorted(set(wanted(clients="clients" in sys.argv[1:])))
    if not packages:
        return
    line = install_line(packages)
    if not may_install():
        print(f"tests that need {', '.join(packages)} are skipped; install: sudo {' '.join(line)}", file=sys.stderr)
        return
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update"], line):
        print(f"==> {' '.join(command)}", file=sys.stderr, flush=True)
        if subprocess.run(command, env=quiet, check=False).returncode:
            print(f"could not install {', '.join(packages)}: the tests that need it are skipped", file=sys.stderr)
            return


if __name__ == "__main__":
    main()
