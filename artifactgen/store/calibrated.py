"""What was left open when an output directory was begun, and is decided since.

A preflight calibrates options by the first records that it sees, and `precision=auto` by the
devices that there are. A run of other splits, or of the rest after an interruption, sees other
records, perhaps on another machine. Its shards must be computed like those that are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self, TypeVar

from artifactgen.store.atomic import read_json, write_json
from artifactgen.store.layout import Layout

Options = TypeVar("Options")


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What was decided, in plain types."""

    device: str
    """Name of the devices that compute; at first only `cpu` or `cuda`."""
    precision: str
    resolved: Mapping[str, Any]
    """Everything that the settings came to, with the defaults of their classes and of timm."""
    artifacts: Mapping[str, Mapping[str, Any]]
    """Kind of artifact to the options that were decided, by name; of JSON's plain types."""

    @classmethod
    def of(
        cls,
        asked: Mapping[str, Any],
        found: Mapping[str, Any],
        *,
        device: str,
        precision: str,
        resolved: Mapping[str, Any],
    ) -> Self:
        """What of the options that were asked for is different in those that were found."""
        changed = {name: _changed(asked[name], options) for name, options in found.items()}
        return cls(device, precision, resolved, changed)

    def options(self, asked: Mapping[str, Options]) -> dict[str, Options]:
        """The options that are asked for, with what was decided of them."""
        return {
            name: replace(options, **self.artifacts.get(name, {}))  # type: ignore[type-var]
            for name, options in asked.items()
        }


def recall(layout: Layout) -> Calibrated | None:
    """What was decided for a directory; None for a new one, and where the file is damaged."""
    try:
        found = Calibrated(**read_json(layout.calibrated))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    texts, mappings = (found.device, found.precision), (found.resolved, found.artifacts)
    has_form = all(isinstance(text, str) for text in texts) and all(
        isinstance(value, dict) for value in (*mappings, *(mappings[1] or {}).values())
    )
    return found if has_form else None


def remember(layout: Layout, calibrated: Calibrated) -> None:
    """Write down what was decided."""
    write_json(layout.calibrated, asdict(calibrated), temp_dir=layout.temp)


def _changed(asked: Any, found: Any) -> dict[str, Any]:
    values = {field.name: getattr(found, field.name) for field in fields(found)}
    return {name: value for name, value in values.items() if value != getattr(asked, name)}
