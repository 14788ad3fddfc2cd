from __future__ import annotations

import json
from typing import Any

import pytest

from artifactgen.store.fingerprint import difference, fingerprint

SETTINGS: dict[str, Any] = {
    "data": {"source": "Hdf5", "batch_size": 32, "classes": None},
    "gradcam": {"layer": "auto", "options": {}},
    "limit": None,
}


def test_the_order_of_keys_and_a_way_through_json_change_nothing() -> None:
    turned = json.loads(json.dumps(dict(reversed(SETTINGS.items()))))
    assert fingerprint(turned) == fingerprint(SETTINGS)
    assert difference(turned, SETTINGS) == []


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        ({"limit": 5}, ["limit: null → 5"]),
        ({"gradcam": {"layer": "b.1", "options": {}}}, ['gradcam.layer: "auto" → "b.1"']),
        ({"extra": False}, ["extra: not set → false"]),
        ({"extra": None}, ["extra: not set → null"]),
        (
            {"gradcam": {"layer": "auto", "options": {"k": 1}}},
            ["gradcam.options: {} → not set", "gradcam.options.k: not set → 1"],
        ),
        (
            {"data": {"source": "Hdf5", "batch_size": 32.0, "classes": None}},
            ["data.batch_size: 32 → 32.0"],
        ),
        ({"limit": "é" * 100}, [f'limit: null → "{"é" * 56}…']),
    ],
    ids=str,
)
def test_a_setting_that_differs_is_told_and_makes_another_fingerprint(
    change: dict[str, Any], lines: list[str]
) -> None:
    changed = {**SETTINGS, **change}
    assert difference(SETTINGS, changed) == lines
    assert fingerprint(SETTINGS) != fingerprint(changed)


@pytest.mark.parametrize(("old", "new"), [({}, {"a": 1}), ({"a": True}, {"a": 1})], ids=str)
def test_there_is_a_difference_wherever_the_fingerprints_differ(old: Any, new: Any) -> None:
    assert fingerprint(old) != fingerprint(new)
    assert len(difference(old, new)) == 1
    assert len(difference(new, old)) == 1
