"""Installs the Debian packages that the tests call, where it may; else names the line and lets those tests skip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

# The command that tests look for, and the package that brings it.
WANTED = {"curl": "curl"}


def main() -> None:
    """Install what is missing as root on Debian; anywhere else only say what would be installed."""
    missing = sorted({package for command, package in WANTED.items() if not shutil.which(command)})
    if not missing:
        return
    line = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        print(f"tests that need {', '.join(missing)} are skipped; install: sudo {' '.join(line)}", file=sys.stderr)
        return
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update"], line):
        print(f"==> {' '.join(command)}", file=sys.stderr, flush=True)
        if subprocess.run(command, env=quiet, check=False).returncode:
            print(f"could not install {', '.join(missing)}: the tests that need it are skipped", file=sys.stderr)
            return


if __name__ == "__main__":
    main()
