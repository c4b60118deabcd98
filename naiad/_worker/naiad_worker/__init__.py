"""The worker: one process that holds exactly one instance of one model. Standard library and numpy only."""

import os
import sys

PROTOCOL = 1


def leave_current_folder() -> None:
    """Takes the folder in which the server was started out of `sys.path`: `python -m` puts it there, at the front.

    What lies there is nobody's module: a folder `torch` or a file `onnxruntime.py` would be taken for the framework.
    Under Python 3.11 and later `-P` says the same; environments may be older.
    """
    try:
        here = os.getcwd()
    except OSError:  # it is gone, so nothing was put there
        return
    if sys.argv[:1] == ["-m"] and not getattr(sys.flags, "safe_path", False) and sys.path[:1] == [here]:
        del sys.path[0]


leave_current_folder()
