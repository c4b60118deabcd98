"""How torch writes the structure of a call: which place of the arguments or of the result each tensor has.

Source: the JSON of `torch.utils._pytree.treespec_dumps`, protocol 1.
"""

from __future__ import annotations

import json
from typing import Any

from naiad.signature.opcodes import NotReadable

MAX_DEPTH = 32
MAX_LEAVES = 1024
MAX_TEXT = 1 << 20
_KEYED = ("builtins.dict", "collections.OrderedDict", "collections.defaultdict")


def inputs(text: str, names: list[str]) -> list[tuple[str, str]] | None:
    """(name, path) of each leaf of the arguments, in order; None where the text is empty.

    A plain argument is called as in `names`, else INPUT__<place>; a plain keyword by itself; what lies deeper by its
    path, as `ARGS[0][key]`. Raises `NotReadable`.
    """
    if not text:
        return None
    root = _root(text)
    parts = _children(root)
    if len(parts) != 2:
        raise NotReadable(f"a call of {len(parts)} parts, expected arguments and keywords")
    found: list[tuple[str, str]] = []
    for at, child in enumerate(_children(parts[0])):
        plain = names[at] if at < len(names) else f"INPUT__{at}"
        _walk(child, f"ARGS[{at}]", plain, found)
    for key, child in zip(_keys(parts[1]), _children(parts[1]), strict=True):
        _walk(child, f"KWARGS[{key}]", key, found)
    return found


def outputs(text: str) -> list[str] | None:
    """The name of each leaf of the result: OUTPUT__<place>, a dictionary's keys, or the path `RESULT[boxes][0]`."""
    if not text:
        return None
    root = _root(text)
    if _kind(root) is None:
        return ["OUTPUT__0"]
    keyed = _kind(root) in _KEYED
    found: list[tuple[str, str]] = []
    for key, child in zip(_keys(root), _children(root), strict=True):
        _walk(child, f"RESULT[{key}]", key if keyed else f"OUTPUT__{key}", found)
    return [name for name, _ in found]


def _root(text: str) -> dict[str, Any]:
    if len(text) > MAX_TEXT:
        raise NotReadable(f"a call of {len(text)} characters")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise NotReadable(f"the structure of the call is not readable: {error}") from error
    if not isinstance(document, list) or len(document) != 2 or document[0] != 1:
        raise NotReadable("the structure of the call is of another version")
    return _node(document[1])


def _node(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise NotReadable("the structure of the call has a node that is no object")
    return value


def _kind(node: dict[str, Any]) -> str | None:
    kind = node.get("type")
    return None if kind is None else str(kind)


def _children(node: dict[str, Any]) -> list[dict[str, Any]]:
    below = node.get("children_spec")
    if not isinstance(below, list) or len(below) > MAX_LEAVES:
        raise NotReadable("the structure of the call has a node without a list of children")
    return [_node(child) for child in below]


def _keys(node: dict[str, Any]) -> list[str]:
    """Keys of a dictionary, else places."""
    count = len(_children(node))
    if _kind(node) in _KEYED:
        try:
            keys = json.loads(str(node.get("context")))
        except (ValueError, RecursionError):
            keys = None
        if isinstance(keys, list) and len(keys) == count:
            return [str(key)[:256] for key in keys]
    return [str(place) for place in range(count)]


def _walk(node: dict[str, Any], path: str, plain: str, found: list[tuple[str, str]]) -> None:
    if _kind(node) is None:
        found.append((plain or path, path))
        if len(found) > MAX_LEAVES:
            raise NotReadable(f"more than {MAX_LEAVES} tensors in a call")
        return
    if path.count("[") > MAX_DEPTH:
        raise NotReadable(f"a call that is nested more than {MAX_DEPTH} deep")
    for key, child in zip(_keys(node), _children(node), strict=True):
        _walk(child, f"{path}[{key}]", "", found)
