"""What is expected of every architecture: `cases.json`, one of them in a line.

The layer and layout of GradCAM and its route; what attention shows, or the message that says why
there is none. Stated, not computed, so that a family that silently changes is noticed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from benchmarks.exactness.unfused import Shown, WindowForm

_ROWS = Path(__file__).with_suffix(".json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How the target layer's output lies over the image, as known of the architecture."""

    order: Literal["NCHW", "NHWC", "NLC"]
    grid: tuple[int, int]
    prefix: int = 0

    def __call__(self, output: Tensor) -> Tensor:
        """(B, C, h, w), as pytorch-grad-cam's `reshape_transform` gives it."""
        if self.order == "NLC":
            patches_BNC = output[:, self.prefix :]
            return patches_BNC.transpose(1, 2).reshape(len(output), -1, *self.grid)
        map_BChw = output.permute(0, 3, 1, 2) if self.order == "NHWC" else output
        assert tuple(map_BChw.shape[-2:]) == self.grid, map_BChw.shape
        return map_BChw


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An architecture and what is expected of it."""

    family: str
    module: str
    """Of `timm.models`."""
    name: str
    size: tuple[int, int]
    options: dict[str, Any]
    layer: str
    layout: Layout
    route: str
    seed: int
    """Of the images."""
    classes: tuple[int, ...]
    """Three whose maps are not empty, for these images."""
    attention: dict[int, Shown] | str
    """By index of the block, or why there is none."""
    calibrated: bool = False
    """Whether batch norms need statistics of their own for maps that say something."""
    mixed: tuple[str, ...] = ()
    """Layers each of whose positions sees, with random weights, all of the image alike."""

    @property
    def title(self) -> str:
        """The name, with its options where they change what the family is."""
        changed = {k: v for k, v in self.options.items() if k not in ("img_size", "depth")}
        return " ".join([self.name, *(f"{k}={v}" for k, v in changed.items())])

    @property
    def kind(self) -> tuple[object, ...]:
        """What is different about how it is read: layout, route, queries, windows."""
        shown = self.attention.values() if isinstance(self.attention, dict) else ()
        queries = frozenset((each.query, each.windows is not None) for each in shown)
        return self.layout.order, self.layout.prefix, self.route, queries


def one_of_each_kind() -> list[Case]:
    """The first case of each kind: what the quick tests take."""
    first: dict[tuple[object, ...], Case] = {}
    for case in cases():
        first.setdefault(case.kind, case)
    return list(first.values())


def cases() -> list[Case]:
    """Every row of the table."""
    return [_case(json.loads(line)) for line in _ROWS.read_text().splitlines()]


def _case(row: dict[str, Any]) -> Case:
    layout, attention = row["layout"], row["attention"]
    if not isinstance(attention, str):
        attention = {int(index): _shown(shown) for index, shown in attention.items()}
    return Case(
        **{
            **row,
            "size": tuple(row["size"]),
            "classes": tuple(row["classes"]),
            "mixed": tuple(row.get("mixed", ())),
            "layout": Layout(**{**layout, "grid": tuple(layout["grid"])}),
            "attention": attention,
        }
    )


def _shown(row: dict[str, Any]) -> Shown:
    windows = row.get("windows")
    if windows is not None:
        size, shift = tuple(windows["size"]), tuple(windows.get("shift", (0, 0)))
        windows = WindowForm(size=size, shift=shift, by=windows.get("by", "window"))
    return Shown(**{**row, "grid": tuple(row["grid"]), "windows": windows})
