"""What a dry run would report, taken from the file: for models that do not run on zeros but declare all they take."""

from __future__ import annotations

from typing import Any

from naiad.config.probe import ProbeRequest


def report(probed: ProbeRequest, cause: str) -> dict[str, Any] | None:
    """The fields of PROBED and a note; None where the file leaves something open.

    The model batches if the first dim of every input and output is open: the rule by which Triton completes ONNX.
    """
    signature = probed.signature
    outputs = signature.outputs if signature is not None else ()
    if not outputs or not all(tensor.datatype and tensor.dims is not None for tensor in outputs):
        return None
    if not all("declared" in entry for entry in probed.inputs):
        return None
    dims = {entry["name"]: list(entry["dims"]) for entry in probed.inputs}
    told = {tensor.name: list(tensor.dims or ()) for tensor in outputs}
    fixed = [name for name, shape in (dims | told).items() if shape[:1] != [-1]]
    return {
        "outputs": [
            {"name": tensor.name, "datatype": tensor.datatype, "dims": told[tensor.name]} for tensor in outputs
        ],
        "batchable": not fixed if probed.batched else None,
        "reason": f"the file declares no open first dimension for '{fixed[0]}'" if fixed else "",
        "varying": {name: [dim == -1 for dim in shape] for name, shape in dims.items()},
        "shapes": dims,
        "note": f"a dry run with zeros fails, so what the file declares is taken as it is: {cause}",
    }
