"""Text in pictures, in the DejaVu Sans that comes with matplotlib: the same on every machine."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

ELLIPSIS = "…"

Color = tuple[int, int, int]


def font_path(*, bold: bool = False) -> Path:
    """The file of the font."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name


@cache
def load_font(size_px: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """The font at a size; laid out by Pillow itself, since not every machine has Raqm."""
    return ImageFont.truetype(font_path(bold=bold), size_px, layout_engine=ImageFont.Layout.BASIC)


def printable(text: str) -> str:
    """The text on one line, with a visible mark for control characters and what has no glyph."""
    shown = _glyphs()
    return "".join(
        char if char.isprintable() and ord(char) in shown else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )


@cache
def _glyphs() -> frozenset[int]:
    """The code points that the font has in both weights."""
    regular, bold = (FT2Font(str(font_path(bold=bold))).get_charmap() for bold in (False, True))
    return frozenset(regular.keys() & bold.keys())


def fit_text(text: str, font: ImageFont.FreeTypeFont, width_px: int) -> str:
    """The printable text, shortened in its middle to fit: both ends of an id tell it apart."""
    text = printable(text)
    if font.getlength(text) <= width_px:
        return text
    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        kept = (fits + too_long) // 2
        if font.getlength(_shorten(text, kept)) <= width_px:
            fits = kept
        else:
            too_long = kept
    return _shorten(text, fits)


def _shorten(text: str, kept: int) -> str:
    return text[: (kept + 1) // 2] + ELLIPSIS + text[len(text) - kept // 2 :]


def write_text(
    canvas_HW3: NDArray[np.uint8],
    text: str,
    position: tuple[int, int],
    *,
    font: ImageFont.FreeTypeFont,
    color: Color,
    anchor: str = "ls",
) -> None:
    """Write printable text into the canvas.

    Args:
        canvas_HW3: uint8 RGB, changed in place where the text stands.
        text: one line.
        position: (x, y) in pixels of the anchor.
        font: from `load_font`.
        color: RGB.
        anchor: Pillow's; `ls` is the left end of the baseline.
    """
    if not text:
        return
    kept, ink, (left, top) = _render(text, font, color, anchor)
    height, width = ink.shape[:2]
    x, y = position[0] + left, position[1] + top
    region = canvas_HW3[max(y, 0) : y + height, max(x, 0) : x + width]
    assert region.shape == ink.shape, f"{text!r} is clipped at {position}"
    region[:] = cv2.add(cv2.multiply(region, kept, scale=1 / 255), ink)


@lru_cache(maxsize=512)
def _render(
    text: str, font: ImageFont.FreeTypeFont, color: Color, anchor: str
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], tuple[int, int]]:
    """Weight of what is below the text, the text's own share, and its (left, top) from the anchor.

    Most of a figure's texts, such as the numbers along its colour bar, come again and again.
    """
    left, top, right, bottom = (round(edge) for edge in font.getbbox(text, anchor=anchor))
    patch = Image.new("L", (max(1, right - left), max(1, bottom - top)))
    ImageDraw.Draw(patch).text((-left, -top), text, fill=255, font=font, anchor=anchor)
    coverage_HW3 = np.asarray(patch)[..., None].repeat(3, axis=-1)
    ink = np.rint(coverage_HW3 * (np.array(color) / 255)).astype(np.uint8)
    return 255 - coverage_HW3, ink, (left, top)
