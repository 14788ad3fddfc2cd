"""The contact sheet of a split: some of its records, each with its pictures side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artifactgen.rendering.figure.geometry import (
    MIN_WIDTH_PX,
    Rect,
    Sizes,
    aspect_of,
    fitted,
    line_height,
)
from artifactgen.rendering.figure.geometry import baseline as baseline_of
from artifactgen.rendering.figure.template import INK, MUTED
from artifactgen.rendering.image import resize_picture
from artifactgen.rendering.text import Color, fit_text, load_font, write_text

PAPER, EMPTY = 255, 238
WRONG: Color = (176, 28, 28)

_LARGEST_PANEL_PX = 285 * 285
_NARROWEST_CARD_PX = 380
"""So that class and prediction can be read below the id."""

Panel = NDArray[np.uint8] | str
"""A picture, (H, W, 3) uint8 RGB, or why there is none, in a word or two."""


@dataclass(frozen=True, slots=True)
class Card:
    """One record."""

    title: str
    """Its id."""
    subtitle: str
    """Its class and its prediction."""
    is_wrong: bool
    """Whether they differ."""
    panels: tuple[Panel, ...]
    """One for each column."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """What a contact sheet shows."""

    title: str
    subtitle: str
    columns: tuple[str, ...]
    """Names of a card's panels."""
    cards: tuple[Card, ...]
    image_size: tuple[int, int]
    """(H, W) of the model's input; places of panels have its aspect. Other pictures keep theirs."""


@dataclass(frozen=True, slots=True)
class _Grid:
    """Where the cards and their panels stand."""

    sizes: Sizes
    across: int
    columns: int
    slot: int
    """Width of a panel."""
    panel_height: int
    top: int
    """Of the first card, below the names of its columns."""

    @property
    def card(self) -> tuple[int, int]:
        """(H, W), without the space around."""
        text = line_height(self.sizes.caption) + line_height(self.sizes.tick)
        width = self.columns * (self.slot + self.sizes.gap) - self.sizes.gap
        return text + self.sizes.gap // 2 + self.panel_height, width

    def place(self, index: int) -> Rect:
        """The rectangle of a card."""
        row, column = divmod(index, self.across)
        height, width = self.card
        left = self.sizes.margin + column * (width + self.sizes.gutter)
        return Rect(left, self.top + row * (height + 2 * self.sizes.gap), width, height)

    def slots(self, card: Rect) -> list[Rect]:
        """The places of a card's panels."""
        top = card.bottom - self.panel_height
        step = self.slot + self.sizes.gap
        return [
            Rect(card.left + column * step, top, self.slot, self.panel_height)
            for column in range(self.columns)
        ]


def draw_sheet(sheet: Sheet) -> NDArray[np.uint8]:
    """The contact sheet, uint8 RGB, `MIN_WIDTH_PX` wide and as high as its cards need."""
    sizes = Sizes.for_width(MIN_WIDTH_PX)
    grid = _arrange(sheet, sizes)
    last = grid.place(max(len(sheet.cards) - 1, 0))
    bottom = last.bottom if sheet.cards else grid.top
    canvas = np.full((bottom + sizes.margin, MIN_WIDTH_PX, 3), PAPER, np.uint8)
    _write_header(canvas, sheet, grid)
    for index, card in enumerate(sheet.cards):
        _draw_card(canvas, card, grid, grid.place(index))
    return canvas


def _arrange(sheet: Sheet, sizes: Sizes) -> _Grid:
    """As few cards across as keep panels from being larger than a glance needs."""
    grids = [_grid(sheet, sizes, across) for across in range(1, 9)]
    wide = [grid for grid in grids if grid.card[1] >= _NARROWEST_CARD_PX] or grids[:1]
    small = (grid for grid in wide if grid.slot * grid.panel_height <= _LARGEST_PANEL_PX)
    return next(small, wide[-1])


def _grid(sheet: Sheet, sizes: Sizes, across: int) -> _Grid:
    columns = len(sheet.columns)
    free = MIN_WIDTH_PX - 2 * sizes.margin - (across - 1) * sizes.gutter
    slot = max(1, (free - across * (columns - 1) * sizes.gap) // (across * columns))
    aspect = aspect_of(sheet.image_size)
    header = line_height(sizes.title) + sizes.gap // 2 + line_height(sizes.subtitle)
    top = sizes.margin + header + 2 * sizes.gap + line_height(sizes.tick) + sizes.gap
    return _Grid(sizes, across, columns, slot, max(1, round(slot * aspect)), top)


def _write_header(canvas: NDArray[np.uint8], sheet: Sheet, grid: _Grid) -> None:
    sizes = grid.sizes
    width = MIN_WIDTH_PX - 2 * sizes.margin
    title = Rect(sizes.margin, sizes.margin, width, line_height(sizes.title))
    _write(canvas, sheet.title, title, sizes.title, bold=True)
    subtitle = Rect(sizes.margin, title.bottom + sizes.gap // 2, width, line_height(sizes.subtitle))
    _write(canvas, sheet.subtitle, subtitle, sizes.subtitle, color=MUTED)
    font_px = _name_font(sheet.columns, grid)
    names_top = grid.top - sizes.gap // 2 - line_height(font_px)
    for index in range(min(grid.across, len(sheet.cards))):
        for name, slot in zip(sheet.columns, grid.slots(grid.place(index)), strict=True):
            line = Rect(slot.left, names_top, slot.width, line_height(font_px))
            _write(canvas, name, line, font_px, color=MUTED)


def _name_font(names: Sequence[str], grid: _Grid) -> int:
    """The largest font, not below two thirds of the ticks', that all names of columns fit in."""
    usual, least = grid.sizes.tick * 6 // 7, grid.sizes.tick * 2 // 3
    return next(
        (
            font_px
            for font_px in range(usual, least, -1)
            if all(load_font(font_px).getlength(name) <= grid.slot for name in names)
        ),
        least,
    )


def _draw_card(canvas: NDArray[np.uint8], card: Card, grid: _Grid, place: Rect) -> None:
    sizes = grid.sizes
    title = Rect(place.left, place.top, place.width, line_height(sizes.caption))
    _write(canvas, card.title, title, sizes.caption, bold=True)
    line = Rect(place.left, title.bottom, place.width, line_height(sizes.tick))
    _write(canvas, card.subtitle, line, sizes.tick, color=WRONG if card.is_wrong else MUTED)
    for panel, slot in zip(card.panels, grid.slots(place), strict=True):
        _draw_panel(canvas, panel, slot, sizes)


def _draw_panel(canvas: NDArray[np.uint8], panel: Panel, place: Rect, sizes: Sizes) -> None:
    if isinstance(panel, str):
        canvas[place.pixels] = EMPTY
        font = load_font(sizes.tick)
        text = fit_text(panel, font, place.width - sizes.gap)
        if font.getlength(text) <= place.width and line_height(sizes.tick) <= place.height:
            center = place.left + place.width // 2, place.top + place.height // 2
            write_text(canvas, text, center, font=font, color=MUTED, anchor="mm")
    else:
        place = fitted(panel.shape[:2], place)
        canvas[place.pixels] = resize_picture(panel, place.size)


def _write(
    canvas: NDArray[np.uint8],
    text: str,
    line: Rect,
    font_px: int,
    *,
    bold: bool = False,
    color: Color = INK,
) -> None:
    font = load_font(font_px, bold=bold)
    position = line.left, baseline_of(line, font_px)
    write_text(canvas, fit_text(text, font, line.width), position, font=font, color=color)
