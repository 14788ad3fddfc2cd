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

_ABSENT = "not set"


def fingerprint(settings: Mapping[str, Any]) -> str:
    """SHA-256, in hex, of settings of plain types; the order of keys does not matter."""
    text = json.dumps(settings, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for each setting that differs: `gradcam.layer: auto → blocks.10.norm1`."""
    before, after = dict(_flat(old)), dict(_flat(new))
    return [
        f"{key}: {_shorten(before.get(key, _ABSENT))} → {_shorten(after.get(key, _ABSENT))}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted key and JSON of each setting: what is one in Python (1, 1.0, True) is told apart."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value, sort_keys=True, ensure_ascii=False)


def _shorten(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}…"
