"""Where everything in an attention figure stands, in whole pixels.

Each block is a band across the figure: pictures, heads, colour bar.

    Block 11
    Input          Head 1   Head 2   Head 3   Head 4    ┌┐
    ┌──────────┐   ┌────┐   ┌────┐   ┌────┐   ┌────┐    ││
    │          │   └────┘   └────┘   └────┘   └────┘    ││
    └──────────┘   Head 5   Head 6   Head 7   Head 8    ││
    Mean           ┌────┐   ┌────┐   ┌────┐   ┌────┐    ││
    ┌──────────┐   └────┘   └────┘   └────┘   └────┘    ││
    │          │   Head 9   Head 10  Head 11  Head 12   ││
    └──────────┘   ┌────┐   ┌────┐   ┌────┐   ┌────┐    ││
                   └────┘   └────┘   └────┘   └────┘    └┘

Heads share one panel size, pictures another, and both end on the same line. Among all grids that
fill the width, `arrange.py` takes the one whose figure is best read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from artifactgen.errors import ConfigError

MIN_WIDTH_PX = 1800
MAX_ASPECT = 8.0
_SAME_FORM = 0.02
"""Of the logarithm of height by width."""


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle of pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """The first column that is no longer part of it."""
        return self.left + self.width

    @property
    def bottom(self) -> int:
        """The first row that is no longer part of it."""
        return self.top + self.height

    @property
    def size(self) -> tuple[int, int]:
        """(H, W), as arrays have it."""
        return self.height, self.width

    @property
    def pixels(self) -> tuple[slice, slice]:
        """The index of its pixels in an (H, W, …) array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def aspect_of(size: Sequence[int]) -> float:
    """Height by width of the panel for a picture of `size` = (H, W)."""
    return min(max(size[0] / size[1], 1 / MAX_ASPECT), MAX_ASPECT)


def fitted(size: Sequence[int], place: Rect) -> Rect:
    """Where in a place a picture of `size` = (H, W) stands: in its middle, in the picture's form.

    A form that hardly differs from the place's fills it: panels are whole pixels.
    """
    ratio = aspect_of(size) * place.width / place.height
    if abs(math.log(ratio)) <= _SAME_FORM:
        return place
    height = round(place.height * min(ratio, 1)) or 1
    width = round(place.width * min(1 / ratio, 1)) or 1
    left, top = (place.width - width) // 2, (place.height - height) // 2
    return Rect(place.left + left, place.top + top, width, height)


@dataclass(frozen=True, slots=True)
class Band:
    """One block's part of the figure."""

    heading: Rect
    inputs: tuple[Rect, ...]
    means: tuple[Rect, ...]
    heads: tuple[Rect, ...]
    colorbar: Rect
    caption_height: int
    """Of the space above each panel; the caption hangs from its top."""

    @property
    def panels(self) -> tuple[Rect, ...]:
        """Every panel: inputs, means, heads."""
        return self.inputs + self.means + self.heads

    def caption(self, panel: Rect) -> Rect:
        """The line above a panel."""
        top = panel.top - self.caption_height
        return Rect(panel.left, top, panel.width, self.caption_height)


@dataclass(frozen=True, slots=True)
class Geometry:
    """Every rectangle of a figure of `size` (H, W)."""

    size: tuple[int, int]
    title: Rect
    subtitle: Rect
    bands: tuple[Band, ...]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Font sizes and distances in pixels, for a figure of `MIN_WIDTH_PX`."""

    title: int = 36
    subtitle: int = 25
    heading: int = 28
    caption: int = 23
    tick: int = 21
    margin: int = 52
    gap: int = 16
    """Between panels."""
    gutter: int = 48
    """At least so much between pictures, heads and colour bar."""
    bar: int = 18
    bar_text: int = 132
    """For the tick labels of the colour bar and its name."""

    @property
    def caption_height(self) -> int:
        """A line for the caption, and some air above its panel."""
        return line_height(self.caption) + self.gap // 3

    @classmethod
    def for_width(cls, width_px: int) -> Sizes:
        """All sizes in proportion to the figure's width."""
        scale = width_px / MIN_WIDTH_PX
        return cls(**{name: round(scale * size) for name, size in asdict(cls()).items()})


def line_height(font_px: int) -> int:
    """Height of a line of DejaVu Sans, ascenders to descenders."""
    return math.ceil(1.2 * font_px)


def baseline(line: Rect, font_px: int) -> int:
    """Row of the baseline in a line of text that hangs from the top of `line`."""
    return line.top + round(0.95 * font_px)


@dataclass(frozen=True, slots=True)
class FigureSpec:
    """What an attention figure has to show; equal specifications give equal geometry.

    Args:
        heads: A, the number of heads of each block.
        blocks: names of the L blocks, one band each.
        image_size: (H, W) of the pictures.
        frame_names: names of the pictures of a record; empty for a single one.
        only_map: name of the only map where it is not a head's, such as a rollout; then A is 1.
        tokens: N, over how many tokens a query's weights are spread; 1/N, which each would get of
            even attention, is marked on the colour bars. None: no mark.
        width_px: width of the figure; fonts and distances grow with it.
    """

    heads: int
    blocks: tuple[str, ...]
    image_size: tuple[int, int]
    frame_names: tuple[str, ...] = ()
    only_map: str = ""
    tokens: int | None = None
    width_px: int = MIN_WIDTH_PX

    def __post_init__(self) -> None:
        assert min(self.heads, len(self.blocks), *self.image_size) > 0, self
        if self.width_px < MIN_WIDTH_PX:
            raise ConfigError(
                f"A figure {self.width_px} px wide cannot be read in print; "
                f"take {MIN_WIDTH_PX} px or more."
            )

    @property
    def mean_name(self) -> str:
        """What is laid over the pictures."""
        return self.only_map or "Mean over heads"

    @property
    def aspect(self) -> float:
        """Height by width of the panels: the image's, save for stripes that would fill a wall."""
        return aspect_of(self.image_size)

    @property
    def pictures(self) -> int:
        """How many pictures a record has."""
        return len(self.frame_names) or 1


def place_in(spec: FigureSpec, panel: Rect, size: Sequence[int]) -> Rect:
    """Where in a figure's panel a picture of `size` = (H, W) stands."""
    return panel if aspect_of(size) == spec.aspect else fitted(size, panel)
