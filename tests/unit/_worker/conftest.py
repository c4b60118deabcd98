"""The worker's package as the worker itself sees it: `naiad_worker`, on a path of its own."""

import sys

from naiad.server.allowed import WORKER_PATH

sys.path.insert(0, str(WORKER_PATH))
