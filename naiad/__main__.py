"""Runs the `naiad` command as `python -m naiad`."""

from __future__ import annotations

from naiad.cli.main import main

main()
