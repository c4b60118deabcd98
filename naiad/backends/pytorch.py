"""TorchScript files."""

from naiad.backends.base import Backend

BACKEND = Backend(
    name="pytorch",
    platforms=("pytorch_libtorch", "libtorch"),
    default_filename="model.pt",
    reads_signature=True,
)
