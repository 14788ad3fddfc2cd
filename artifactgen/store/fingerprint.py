"""Which settings decide the bytes of the artifacts, and how two sets of them differ.

A run resumes only what was made with equal settings: data set, checkpoint, preprocessing, model,
layers, precision, batch size and artifact options. Workers, nodes, threads for reading, and the
places of files are no part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any


def fingerprint(settings: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of settings of plain types; the order of keys does not matter."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for each setting that differs: `gradcam.layer: auto → blocks.10.norm1`."""
    before, after = dict(_flat(old)), dict(_flat(new))
    return [
        f"{key}: {_show(before, key)} → {_show(after, key)}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key, before) != after.get(key, after)
    ]


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _show(settings: Mapping[str, Any], key: str) -> str:
    if key not in settings:
        return "not set"
    text = json.dumps(settings[key], ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
