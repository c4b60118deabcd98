"""`naiad up` as it is, but with the stand-in for the server at its edge."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from naiad.cli.main import main
from naiad.runtimes import local

FAKE = (sys.executable, str(Path(__file__).with_name("fake_serve.py")))
local.LocalOptions = functools.partial(local.LocalOptions, command=FAKE)  # type: ignore[misc]

main()
