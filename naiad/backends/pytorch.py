"""PyTorch models: TorchScript, programs of torch.export, packages of AOTInductor, a class with its weights."""

from naiad.backends.base import Backend

BACKEND = Backend(
    name="pytorch",
    platforms=("pytorch_libtorch", "libtorch", "torch_aoti"),
    filenames=("model.pt", "model.pt2"),
    first="model.py",
    halves={".pt2": "pytorch_export"},
    needs=("torch",),
    reads_signature=True,
)
