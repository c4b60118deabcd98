"""TorchScript files."""

from naiad.backends.base import Backend

BACKEND = Backend(
    name="pytorch",
    platforms=("pytorch_libtorch", "libtorch"),
    filenames=("model.pt",),
    reads_signature=True,
)
