"""What a zygote or worker may inherit: listed variables and nothing else (E6)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

WORKER_PATH = Path(__file__).resolve().parent.parent / "_worker"
START = str(WORKER_PATH / "naiad_worker_start.py")
"""What a Python runs, with `zygote` or `main` behind it."""

_NAMES = frozenset({"PATH", "HOME", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV"})
# One by one, not as TF_: variables of that prefix belong to other programs too, and hold their secrets.
_TENSORFLOW = frozenset({"TF_CPP_MIN_LOG_LEVEL", "TF_ENABLE_ONEDNN_OPTS", "TF_FORCE_GPU_ALLOW_GROWTH", "TF_XLA_FLAGS"})
_PREFIXES = ("LC_", "CUDA_", "NVIDIA_", "OMP_", "MKL_", "GOMP_", "KMP_", "OPENBLAS_", "TORCH_", "TORCHINDUCTOR_")
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL")
"""Of those prefixes, too, some names hold one: NVIDIA_API_KEY."""

# One intra-op thread unless configured: two processes with two threads each on two cores lose 3x to 15x.
_DEFAULTS = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "GOMP_SPINCOUNT": "0",
    "PYTHONUNBUFFERED": "1",
}


def worker_environment(base: Mapping[str, str], extra: Mapping[str, str]) -> dict[str, str]:
    """The variables of a zygote: the allowed part of `base`, Naiad's defaults, then what the model asks for."""
    named = _NAMES | _TENSORFLOW
    allowed = {
        name: value
        for name, value in base.items()
        if name in named or (name.startswith(_PREFIXES) and not _SECRET.search(name))
    }
    variables = {**_DEFAULTS, **allowed, **extra, "PYTHONPATH": str(WORKER_PATH)}
    if not variables.get("VIRTUAL_ENV"):  # an empty one would still say that there is one
        variables.pop("VIRTUAL_ENV", None)
    return variables
