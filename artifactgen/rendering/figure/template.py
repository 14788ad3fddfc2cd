"""The part of an attention figure that all records share, drawn once with matplotlib."""

from __future__ import annotations

import io

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from numpy.typing import NDArray

from artifactgen.rendering.figure.geometry import (
    Band,
    FigureSpec,
    Geometry,
    Rect,
    Sizes,
    baseline,
)
from artifactgen.rendering.text import Color, fit_text, font_path, load_font, printable

PAPER: Color = (255, 255, 255)
INK: Color = (26, 26, 26)
MUTED: Color = (102, 102, 102)

DOTS_PER_INCH = 64
"""A power of two, so that pixels divided by it and multiplied again are the same pixels."""

POINTS_PER_INCH = 72

COLORBAR_NAMES = "Attention weight", "Weight"
"""From the longest to the shortest; the first that fits the bar is written along it."""


def draw_template(
    spec: FigureSpec, geometry: Geometry, color_table: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """The figure without a record: block names, captions, colour bars; uint8 RGB.

    The settings of a user's matplotlibrc do not show, and stay as they are.
    """
    height, width = geometry.size
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        figure = Figure((width / DOTS_PER_INCH, height / DOTS_PER_INCH), dpi=DOTS_PER_INCH)
        for name, band in zip(spec.blocks, geometry.bands, strict=True):
            _write_band(figure, name, band, spec)
        rgba = io.BytesIO()
        figure.savefig(rgba, format="rgba")
    pixels = np.frombuffer(rgba.getvalue(), np.uint8).reshape(height, width, 4)
    template = np.ascontiguousarray(pixels[..., :3])
    for band in geometry.bands:
        _paint_colorbar(template, band.colorbar, color_table)
    return template


def _write_band(figure: Figure, name: str, band: Band, spec: FigureSpec) -> None:
    sizes = Sizes.for_width(spec.width_px)
    heading = band.heading
    position = heading.left, baseline(heading, sizes.heading)
    _place(figure, block_title(name, spec), position, sizes.heading, bold=True)
    for caption, panel in zip(_captions(spec, band), band.panels, strict=True):
        line = band.caption(panel)
        text = fit_text(caption, load_font(sizes.caption), line.width)
        _place(figure, text, (line.left, baseline(line, sizes.caption)), sizes.caption)
    _write_colorbar_name(figure, band.colorbar, sizes)


def _write_colorbar_name(figure: Figure, bar: Rect, sizes: Sizes) -> None:
    font = load_font(sizes.tick)
    names = [name for name in COLORBAR_NAMES if font.getlength(name) <= bar.height]
    foot = bar.right + sizes.bar_text, bar.top + bar.height / 2
    if names:
        _place(figure, names[0], foot, sizes.tick, upwards=True)


def block_title(name: str, spec: FigureSpec) -> str:
    """The name of a block, at most half as wide as the figure."""
    font = load_font(Sizes.for_width(spec.width_px).heading, bold=True)
    return fit_text(name, font, spec.width_px // 2)


def _captions(spec: FigureSpec, band: Band) -> list[str]:
    inputs = spec.frame_names or ("Input",)
    heads = [spec.only_map or f"Head {number}" for number in range(1, spec.heads + 1)]
    return [*inputs, *_mean_captions(spec, band), *heads]


def _mean_captions(spec: FigureSpec, band: Band) -> list[str]:
    """Spelled out where the panels are wide enough for all."""
    font = load_font(Sizes.for_width(spec.width_px).caption)
    frames = [f", {printable(name)}" for name in spec.frame_names] or [""]
    spelled_out = [f"{spec.mean_name}{frame}" for frame in frames]
    if max(map(font.getlength, spelled_out)) <= band.means[0].width:
        return spelled_out
    return [f"{spec.only_map or 'Mean'}{frame}" for frame in frames]


def _place(
    figure: Figure,
    text: str,
    position: tuple[float, float],
    font_px: int,
    *,
    bold: bool = False,
    upwards: bool = False,
) -> None:
    """Text from a point of its baseline in pixels; upwards, around that point."""
    height, width = figure.bbox.height, figure.bbox.width
    figure.text(
        position[0] / width,
        1 - position[1] / height,
        text,
        color=tuple(part / 255 for part in (MUTED if upwards else INK)),
        fontproperties=FontProperties(fname=font_path(bold=bold)),
        fontsize=font_px * POINTS_PER_INCH / DOTS_PER_INCH,
        rotation=90 if upwards else 0,
        horizontalalignment="center" if upwards else "left",
        verticalalignment="bottom" if upwards else "baseline",
        rotation_mode="anchor",
        parse_math=False,
    )


def _paint_colorbar(template: NDArray[np.uint8], bar: Rect, color_table: NDArray[np.uint8]) -> None:
    """The color of every level from the lowest at the bottom to the highest at the top."""
    levels = np.rint(np.linspace(255, 0, bar.height)).astype(np.uint8)
    template[bar.pixels] = color_table[levels][:, None]
