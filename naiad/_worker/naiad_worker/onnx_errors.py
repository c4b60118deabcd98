"""What onnxruntime says when it fails, in words that name the model's fault and what to do, without paths."""

from __future__ import annotations

import re
from collections.abc import Callable

from naiad_worker.backends import LoadFailure

_PREFIX = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_LOADING = re.compile(r"^Load model from .*? failed: ?|^Exception during (loading|initialization): ?")
# Where in onnxruntime's own source it failed: file, line, the function with its arguments.
_SOURCE = re.compile(
    r"\S+\.(?:cc|cpp|cu|h|cuh):\d+ (?:[^()]*\([^()]*\)(?: const)?(?:::<lambda\([^)]*\)>)?(?: \[with [^\]]*\])? |\w+ )?"
)
# Names of nodes look like paths, too: only what stands in quotes is one.
_PATH = re.compile(r'"/(?:[^/"]+/)*([^/"]*)"')
_UPGRADE = "pip install -U onnxruntime"


def plain(text: str) -> str:
    """The text on one line, without where it failed in onnxruntime and without folders of this machine."""
    text = " ".join(text.split())
    for pattern in (_PREFIX, _LOADING, _PREFIX, _LOADING):
        text = pattern.sub("", text)
    return _PATH.sub(r'"\1"', _SOURCE.sub("", text)).strip()


def _ir(found: re.Match[str], version: str) -> LoadFailure:
    return LoadFailure(
        f"the model has IR version {found[1]}, and onnxruntime {version} reads up to {found[2]}",
        f"{_UPGRADE}; or, if the model has nothing newer in it: "
        f"model = onnx.load(file); model.ir_version = {found[2]}; onnx.save(model, file)",
        "IR_TOO_NEW",
    )


def _opset(found: re.Match[str], version: str) -> LoadFailure:
    opset, domain, most = found[1], found[2], found[3]
    convert = f"onnx.version_converter.convert_version(onnx.load(file), {most})"
    export = convert if domain == "ai.onnx" else f"export with target_opset={{'{domain}': {most}}}"
    return LoadFailure(
        f"the model has opset {opset} of {domain}, and onnxruntime {version} has up to {most}",
        f"{_UPGRADE}; or convert the model: {export}",
        "OPSET_TOO_NEW",
    )


def _operator(found: re.Match[str], version: str) -> LoadFailure:
    domain = found["domain"] or "ai.onnx"
    own = domain in ("ai.onnx", "ai.onnx.ml")
    known = f" in opset {found['opset']}" if found.groupdict().get("opset") else ""
    fix = "export the model again with an opset that has it" if own else "export the model again without it"
    what = f"operator {domain}.{found['name']}{known}"
    return LoadFailure(
        f"the model uses {what}, which onnxruntime {version} does not have",
        f"{fix}, or use an environment whose onnxruntime brings it",
        "MISSING_OP",
    )


def _implementation(found: re.Match[str], version: str) -> LoadFailure:
    return LoadFailure(
        f"onnxruntime {version} has no implementation of operator {found[1]} of opset {found[2]} for the types "
        "that the model gives it",
        "export the model again in another type (float instead of bfloat16, say)",
        "MISSING_OP",
    )


def _damaged(_found: re.Match[str], _version: str) -> LoadFailure:
    return LoadFailure(
        "the file is no ONNX model, or a damaged one", "copy it again and compare the sizes", "TRUNCATED"
    )


_RULES: list[tuple[str, Callable[[re.Match[str], str], LoadFailure]]] = [
    (r"Unsupported model IR version: (\d+), max supported IR version: (\d+)", _ir),
    (r"Opset (\d+) is under development.*domain (\S+) is till opset (\d+)", _opset),
    (r"(?P<domain>[\w.]*):(?P<name>\w+)\(-?\d+\) is not a registered function/op", _operator),
    (
        r'\("[^"]*", \w+, "(?P<domain>[^"]*)", -?\d+\).*'
        r"No Op registered for (?P<name>\w+) with domain_version of (?P<opset>\d+)",
        _operator,
    ),
    (r"Could not find an implementation for (\w+)\((\d+)\) node", _implementation),
    (r"Protobuf parsing failed", _damaged),
]


def load_failure(error: Exception, *, file: str, version: str) -> LoadFailure:
    """Why a session could not be made."""
    text = plain(str(error))
    for pattern, make in _RULES:
        found = re.search(pattern, text)
        if found is not None:
            return make(found, version)
    return LoadFailure(f"onnxruntime {version} cannot load '{file}': {text}")
