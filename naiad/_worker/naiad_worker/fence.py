"""Becomes another program behind the fence, so that not even the interpreter of a foreign environment runs outside."""

from __future__ import annotations

import json
import os
import sys

from naiad_worker import restrict


def main() -> None:
    """Arguments: limits and variables as JSON, then the command.

    The variables come as an argument, for some of them have a loader take libraries from the environment.
    """
    limits, variables, *command = sys.argv[1:]
    try:
        restrict.restrict(restrict.Limits(**json.loads(limits)))
    except (restrict.Unrestricted, OSError, ValueError) as error:
        print(f"it cannot be restricted here: {error}", file=sys.stderr)
        sys.exit(restrict.UNRESTRICTED)
    try:
        os.execve(command[0], command, json.loads(variables))
    except OSError as error:
        print(f"it cannot be started: {error.strerror}", file=sys.stderr)
        sys.exit(1)
