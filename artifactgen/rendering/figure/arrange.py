"""The arrangement of a figure's panels: every pair of grids that fills the width, and the best."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from artifactgen.rendering.figure.geometry import (
    MIN_WIDTH_PX,
    Band,
    FigureSpec,
    Geometry,
    Rect,
    Sizes,
    line_height,
)

PREFERRED_ASPECT = 0.6
"""Height by width of a figure that suits a page and a slide."""

LEGIBLE_PANEL_PX = 190
"""In a figure of `MIN_WIDTH_PX`; smaller panels, on their shorter side, count against a grid."""


@dataclass(frozen=True, slots=True)
class PanelGrid:
    """Rows and columns of equal panels, each below its caption."""

    rows: int
    columns: int
    panel_size: tuple[int, int]
    """(H, W) in pixels."""
    caption: int
    gap: int

    @property
    def width(self) -> int:
        """Pixels from the first panel's left to the last one's right."""
        return self.columns * (self.panel_size[1] + self.gap) - self.gap

    @property
    def height(self) -> int:
        """Pixels from the first caption's top to the last panel's bottom."""
        return self.rows * (self.caption + self.panel_size[0] + self.gap) - self.gap

    def panels(self, left: int, top: int, count: int) -> tuple[Rect, ...]:
        """The first `count` panels, row by row, of the grid at a place."""
        height, width = self.panel_size
        return tuple(
            Rect(
                left + column * (width + self.gap),
                top + self.caption + row * (self.caption + height + self.gap),
                width,
                height,
            )
            for row, column in (divmod(index, self.columns) for index in range(count))
        )


@dataclass(frozen=True, slots=True)
class Arrangement:
    """The two grids of a band."""

    pictures: PanelGrid
    heads: PanelGrid


def arrange(spec: FigureSpec) -> Geometry:
    """The geometry of the arrangement that is best read; the same for equal specifications."""
    sizes = Sizes.for_width(spec.width_px)
    return min(
        (_place(each, spec, sizes) for each in arrangements(spec, sizes)),
        key=lambda geometry: _cost(geometry, spec),
    )


def arrangements(spec: FigureSpec, sizes: Sizes) -> Iterator[Arrangement]:
    """Every arrangement that fills the width; none has an empty row."""
    pictures = spec.pictures
    for columns in range(1, spec.heads + 1):
        rows = math.ceil(spec.heads / columns)
        if math.ceil(spec.heads / rows) != columns:
            continue
        for picture_columns in sorted({2, pictures, 2 * pictures}):
            picture_rows = 2 * pictures // picture_columns
            found = _fill((rows, columns), (picture_rows, picture_columns), spec, sizes)
            if found:
                yield found


def _fill(
    heads: tuple[int, int], pictures: tuple[int, int], spec: FigureSpec, sizes: Sizes
) -> Arrangement | None:
    """Panels as wide as the figure allows, both grids equally high; None where none fit.

    A head's panel is p wide and a p high, where a is the aspect. Equal heights make a
    picture's panel s p + (s - 1) (caption + gap) / a wide, where s is the ratio of the rows.
    """
    (rows, columns), (picture_rows, picture_columns) = heads, pictures
    aspect = spec.aspect
    caption, gap = sizes.caption_height, sizes.gap
    ratio = rows / picture_rows
    extra = (ratio - 1) * (caption + gap) / aspect
    free = _panels_width(spec, sizes) - sizes.gutter - (columns + picture_columns - 2) * gap
    width = math.floor((free - picture_columns * extra) / (columns + picture_columns * ratio))
    if width < 1:
        return None
    head_grid = PanelGrid(rows, columns, (max(1, round(aspect * width)), width), caption, gap)
    height = (head_grid.height + gap) // picture_rows - gap - caption
    picture_width = math.floor(height / aspect)
    if height < 1 or picture_width < 1:
        return None
    return Arrangement(
        PanelGrid(picture_rows, picture_columns, (height, picture_width), caption, gap), head_grid
    )


def _panels_width(spec: FigureSpec, sizes: Sizes) -> int:
    return spec.width_px - 2 * sizes.margin - sizes.gutter // 2 - sizes.bar - sizes.bar_text


def _place(arrangement: Arrangement, spec: FigureSpec, sizes: Sizes) -> Geometry:
    text_width = spec.width_px - 2 * sizes.margin
    title = Rect(sizes.margin, sizes.margin, text_width, line_height(sizes.title))
    top = title.bottom + sizes.gap // 2
    subtitle = Rect(sizes.margin, top, text_width, line_height(sizes.subtitle))
    bands: list[Band] = []
    bottom = subtitle.bottom
    for _ in spec.blocks:
        bands.append(_band(arrangement, spec, sizes, bottom + 2 * sizes.gap))
        bottom = bands[-1].colorbar.bottom
    size = bottom + sizes.margin, spec.width_px
    return Geometry(size, title, subtitle, tuple(bands))


def _band(arrangement: Arrangement, spec: FigureSpec, sizes: Sizes, top: int) -> Band:
    pictures, heads = arrangement.pictures, arrangement.heads
    width = _panels_width(spec, sizes)
    right = sizes.margin + width
    heading = Rect(sizes.margin, top, width, line_height(sizes.heading))
    top = heading.bottom + sizes.gap
    shown = pictures.panels(sizes.margin, top, 2 * spec.pictures)
    by_column = pictures.columns == 2
    bar_height = heads.height - heads.caption
    return Band(
        heading=heading,
        inputs=shown[::2] if by_column else shown[: spec.pictures],
        means=shown[1::2] if by_column else shown[spec.pictures :],
        heads=heads.panels(right - heads.width, top, spec.heads),
        colorbar=Rect(right + sizes.gutter // 2, top + heads.caption, sizes.bar, bar_height),
        caption_height=heads.caption,
    )


def _cost(geometry: Geometry, spec: FigureSpec) -> float:
    """What makes a figure hard to read: a strip or tower, small or unlike panels, empty places."""
    height, width = geometry.size
    band = geometry.bands[0]
    picture, head = band.inputs[0], band.heads[0]
    legible = LEGIBLE_PANEL_PX * width / MIN_WIDTH_PX
    smallest = min(*picture.size, *head.size)
    rows = len({panel.top for panel in band.heads})
    cells = rows * len({panel.left for panel in band.heads})
    return (
        abs(math.log(height / width / PREFERRED_ASPECT))
        + 2 * max(0.0, math.log(legible / smallest))
        + 0.4 * abs(math.log(picture.height / head.height))
        + 3 * (cells - spec.heads) / cells
    )
