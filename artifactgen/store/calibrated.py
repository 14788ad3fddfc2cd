"""What was settled when an output directory was begun holds for as long as it is gone on with.

A preflight settles options by the first records that it sees, and a run of other splits sees other
records. Its shards must be computed like those that are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from artifactgen.artifacts.base import Artifact
from artifactgen.store.atomic import read_json, write_json
from artifactgen.store.layout import Layout


def recall(layout: Layout, artifacts: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """The options with what was settled before; as they are for a new directory."""
    try:
        stored = read_json(layout.settled)
    except (FileNotFoundError, ValueError):  # new, or damaged: it is settled once more
        stored = {}
    return {
        name: replace(artifact, **stored.get(name, {}))  # type: ignore[type-var]
        for name, artifact in artifacts.items()
    }


def remember(
    layout: Layout, asked: Mapping[str, Artifact], settled: Mapping[str, Artifact]
) -> None:
    """Write down what was settled of the options that were asked for."""
    found = {name: _changed(asked[name], artifact) for name, artifact in settled.items()}
    write_json(layout.settled, found, temp_dir=layout.temp)


def _changed(asked: Any, settled: Any) -> dict[str, Any]:
    values = {field.name: getattr(settled, field.name) for field in fields(settled)}
    return {name: value for name, value in values.items() if value != getattr(asked, name)}
