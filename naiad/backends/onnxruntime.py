"""ONNX files."""

from naiad.backends.base import Backend

BACKEND = Backend(
    name="onnxruntime",
    platforms=("onnxruntime_onnx",),
    filenames=("model.onnx",),
    needs=("onnxruntime",),
    reads_signature=True,
    warm_up_calls=1,
    merges=True,
    max_batch_size=4,  # Triton's, so that a repository made for it serves the same; `naiad up` asks for more
)
