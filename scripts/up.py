"""Starts the platform, deploys the example once and prints how to call it; arguments go on to `naiad up`."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STATE = ROOT / ".naiad"
EXAMPLE = ROOT / "examples" / "mnist"
SERVICE = "mnist-cnn"
KEY_HEADER = STATE / "keys" / f"{SERVICE}.header"


def naiad(*arguments: str | Path) -> dict[str, Any]:
    """Run one command of the CLI; its progress is shown, its result comes back."""
    command = [sys.executable, "-m", "naiad", *map(str, arguments), "--state", str(STATE), "-o", "json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stderr:
            if not line.startswith("next: "):  # this script does what comes next
                print(line, end="", file=sys.stderr, flush=True)
        result = process.stdout.read()
    if process.returncode:
        sys.exit(process.returncode)  # the command has said why
    return dict(json.loads(result))


def curl_line(infer: str) -> str:
    """Return the call of the example, runnable from any folder and without a secret in it."""
    words = ["curl", "-X", "POST", infer, "-H", "Content-Type: application/json"]
    words += ["-H", f"@{KEY_HEADER}", "-d", f"@{EXAMPLE / 'request.json'}"]
    return shlex.join(words)


def main() -> None:
    """Bring the example up, or find it running, and print the same lines."""
    platform = naiad("up", "--detach", "--root", ROOT, *sys.argv[1:])
    model = EXAMPLE / "model-repo" / SERVICE
    service = naiad("deploy", model, "--name", SERVICE, "--key-file", KEY_HEADER)
    access = service["status"]["access"]
    if platform.get("console"):
        print(f"console   {platform['console']}")
    print(f"platform  {platform['api']}/api/v1")
    print(f"service   {access['http']}   {service['status']['state']}")
    print("try it    a handwritten 7, so the eighth of the ten numbers that come back is the largest:\n")
    print(f"{curl_line(access['infer'])}\n")
    print(f"more      {shlex.quote(str(ROOT / '.venv' / 'bin' / 'naiad'))} --help")


if __name__ == "__main__":
    main()
