#!/usr/bin/env bash
# Runs its arguments with a Python that Naiad can be built with, or names the line that installs one.
set -euo pipefail

for name in ${PYTHON:-python3 python3.11 python3.12 python3.13 python3.14}; do
  if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
    exec "$name" "$@"
  fi
done

{
  echo "missing: Python 3.11 or newer (found: $(python3 --version 2>/dev/null || echo none))"
  if command -v apt-get >/dev/null; then
    echo "install: sudo apt-get install python3.11 python3.11-venv"
  elif command -v dnf >/dev/null; then
    echo "install: sudo dnf install python3.11"
  else
    echo "install: Python 3.11 or newer from your system's packages, then: make PYTHON=/path/to/python3.11 up"
  fi
} >&2
exit 1
