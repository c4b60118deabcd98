"""Kinds of keys for tests of the gate, and what each of them may do."""

from __future__ import annotations

GRANTS = {
    "infer mine": (["infer"], ["mine"]),
    "infer other": (["infer"], ["other"]),
    "infer all": (["infer"], ["*"]),
    "manage": (["manage"], []),
    "metrics": (["metrics"], []),
    "admin": (["admin"], []),
}
ALLOWED = {
    "public": {None, "expired", "forged", *GRANTS},
    "any_key": set(GRANTS),
    "infer": {"infer mine", "infer all", "manage", "admin"},
    "manage": {"manage", "admin"},
    "metrics": {"metrics", "admin"},
    "admin": {"admin"},
}
