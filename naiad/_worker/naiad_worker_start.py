"""Starts a zygote or a worker. It is a file, for `python -m` looks for every module in the current folder first."""

import sys

if __name__ == "__main__":
    from naiad_worker import main, zygote

    sys.exit(zygote.run() if sys.argv.pop(1) == "zygote" else main.main())
