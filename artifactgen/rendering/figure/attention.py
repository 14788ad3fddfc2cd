"""The attention figure of a record: drawn once as a template, then filled in for each record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from artifactgen.errors import RecordError
from artifactgen.rendering.colormaps import DEFAULT_COLORMAP, lookup_table
from artifactgen.rendering.figure.arrange import arrange
from artifactgen.rendering.figure.geometry import (
    Band,
    FigureSpec,
    Rect,
    Sizes,
    baseline,
    place_in,
)
from artifactgen.rendering.figure.template import (
    INK,
    MUTED,
    PAPER,
    block_title,
    draw_template,
)
from artifactgen.rendering.figure.ticks import tick_labels, with_mark
from artifactgen.rendering.overlay import OPACITY, heatmap, overlay_at, resize_maps
from artifactgen.rendering.placing import BESIDE, Canvas, pixels_in
from artifactgen.rendering.text import fit_text, load_font, write_text
from artifactgen.types import Region

__all__ = ["AttentionFigure", "FigureSpec", "Interpolation"]

Interpolation = Literal["nearest", "linear", "cubic"]

_OPENCV = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
}


class AttentionFigure:
    """Draws the figure of one record after the other, in any number of threads.

    The heads of a block share one colour scale, from 0 to the percentile `clip_percentile` of their
    weights, so that they compare and one outlying patch does not leave the rest black. Above it a
    weight has the last colour, and the colour bar then ends with "≥". A line on the bar marks what
    every token would get of even attention; where all weights are less, the bar ends with "<".
    Their mean is laid over the pictures on a scale from 0 to its own largest weight, named beside
    the block.

    Maps are interpolated in float32 and then taken in 256 levels: `linear` stays within the values
    of its neighbours, `cubic` is smoother and overshoots, `nearest` shows the patches. Pictures are
    enlarged by cubic interpolation and reduced by area. One of another form than the panels stands
    in their middle; of one that the model saw in part, the maps lie where that was.
    """

    def __init__(
        self,
        spec: FigureSpec,
        *,
        colormap: str = DEFAULT_COLORMAP,
        opacity: float = OPACITY,
        interpolation: Interpolation = "linear",
        clip_percentile: float = 99.5,
    ) -> None:
        self.spec = spec
        self.geometry = arrange(spec)
        self._sizes = Sizes.for_width(spec.width_px)
        self._colormap = colormap
        self._opacity = opacity
        self._interpolation = _OPENCV[interpolation]
        self._clip_percentile = clip_percentile
        self._template = draw_template(spec, self.geometry, lookup_table(colormap))

    @property
    def panels(self) -> tuple[Rect, ...]:
        """The rectangles of all panels, block by block: inputs, means, heads."""
        return tuple(panel for band in self.geometry.bands for panel in band.panels)

    def draw(
        self,
        images: Sequence[NDArray[np.uint8]],
        attention_LAhw: NDArray[np.float32],
        *,
        title: str,
        subtitle: str,
        region: Region | None = None,
    ) -> NDArray[np.uint8]:
        """The figure of one record, uint8 RGB of `geometry.size`.

        Args:
            images: the record's pictures, uint8 RGB, as `display_images` returns them.
            attention_LAhw: attention weights from the query to each patch, for each block and head.
            title: the record's id; shortened in its middle where it is too long.
            subtitle: label, prediction, method and so on; shortened likewise.
            region: what of the pictures the attention is to; None = all.

        Raises:
            RecordError: a weight is NaN or infinite.
        """
        spec = self.spec
        assert len(images) == spec.pictures, f"{len(images)} pictures for {spec}"
        assert attention_LAhw.shape[:2] == (len(spec.blocks), spec.heads), spec
        if not np.isfinite(attention_LAhw).all():
            raise RecordError("The attention weights hold NaN or infinity.")
        assert region is None or self._interpolation == cv2.INTER_LINEAR, "linear within pixels"
        shown = Canvas(images, region)
        canvas = self._template.copy()
        self._write_header(canvas, title, subtitle)
        for index, band in enumerate(self.geometry.bands):
            attention_Ahw = attention_LAhw[index].astype(np.float32, copy=False)
            mean_hw = attention_Ahw.mean(axis=0)
            self._draw_pictures(canvas, band, shown, mean_hw)
            self._write_mean_range(canvas, index, float(mean_hw.max()))
            self._draw_heads(canvas, band, shown, attention_Ahw)
        return canvas

    def _write_header(self, canvas: NDArray[np.uint8], title: str, subtitle: str) -> None:
        sizes, geometry = self._sizes, self.geometry
        for line, text, font_px, bold, color in (
            (geometry.title, title, sizes.title, True, INK),
            (geometry.subtitle, subtitle, sizes.subtitle, False, MUTED),
        ):
            font = load_font(font_px, bold=bold)
            position = line.left, baseline(line, font_px)
            write_text(canvas, fit_text(text, font, line.width), position, font=font, color=color)

    def _draw_heads(
        self,
        canvas: NDArray[np.uint8],
        band: Band,
        shown: Canvas,
        attention_Ahw: NDArray[np.float32],
    ) -> None:
        top = float(np.percentile(attention_Ahw, self._clip_percentile, method="higher"))
        maps01_Ahw = _divide(attention_Ahw, top)
        for panel, map01_hw in zip(band.heads, maps01_Ahw, strict=True):
            place = place_in(self.spec, panel, shown.size)
            region = shown.region_at(place.size)
            map01_HW = self._resize(map01_hw, place.size, region)
            picture = canvas[place.pixels]
            if region is not None:
                picture[:] = BESIDE
            picture[pixels_in(region, place.size)] = heatmap(map01_HW, colormap=self._colormap)
        self._write_ticks(canvas, band.colorbar, top, clipped=bool(attention_Ahw.max() > top))

    def _draw_pictures(
        self,
        canvas: NDArray[np.uint8],
        band: Band,
        shown: Canvas,
        mean_hw: NDArray[np.float32],
    ) -> None:
        size = place_in(self.spec, band.inputs[0], shown.size).size
        small, top = shown.resized(size), float(mean_hw.max())
        seen = pixels_in(small.region, size)
        mean_HW = self._resize(_divide(mean_hw, top), size, small.region)
        for picture, plain, covered in zip(small.images, band.inputs, band.means, strict=True):
            canvas[place_in(self.spec, plain, shown.size).pixels] = picture
            canvas[place_in(self.spec, covered, shown.size).pixels] = overlay_at(
                seen, picture, mean_HW, colormap=self._colormap, opacity=self._opacity
            )

    def _resize(
        self, map_hw: NDArray[np.float32], size: tuple[int, int], region: Region | None
    ) -> NDArray[np.float32]:
        return resize_maps(map_hw, size, interpolation=self._interpolation, region=region)

    def _write_mean_range(self, canvas: NDArray[np.uint8], index: int, top: float) -> None:
        sizes, heading = self._sizes, self.geometry.bands[index].heading
        name = block_title(self.spec.blocks[index], self.spec)
        name_width = round(load_font(sizes.heading, bold=True).getlength(name))
        position = heading.left + name_width + 2 * sizes.gap, baseline(heading, sizes.heading)
        text = f"{self.spec.mean_name}: 0 to {top:.2g}"
        write_text(canvas, text, position, font=load_font(sizes.tick), color=MUTED)

    def _write_ticks(
        self, canvas: NDArray[np.uint8], bar: Rect, top: float, *, clipped: bool
    ) -> None:
        font = load_font(self._sizes.tick)
        length = self._sizes.gap // 2
        spacing = 1.5 * self._sizes.tick / bar.height
        ticks = tick_labels(top, spacing=spacing, clipped=clipped)
        tokens = self.spec.tokens
        if tokens is not None and 1 / tokens <= top:
            mark = 1 / (tokens * top), f"1/{tokens}"
            ticks = with_mark(ticks, mark, spacing=spacing)
            self._draw_mark(canvas, bar, mark[0])
        elif tokens is not None and not clipped:
            ticks = with_mark(ticks, (1.0, f"<1/{tokens}"), spacing=spacing)
        for fraction, label in ticks:
            row = _bar_row(bar, fraction)
            canvas[row, bar.right : bar.right + length] = MUTED
            position = bar.right + length + length // 2, row
            write_text(canvas, label, position, font=font, color=MUTED, anchor="lm")

    def _draw_mark(self, canvas: NDArray[np.uint8], bar: Rect, fraction: float) -> None:
        """A line across the bar, white in its dark half, that stands out on both sides."""
        row, length = _bar_row(bar, fraction), self._sizes.gap // 2
        rows = slice(max(bar.top, row - 1), row + 1)
        canvas[rows, bar.left - length : bar.right + length] = INK
        if canvas[row + 1 if row + 1 < bar.bottom else row - 2, bar.left].mean() < 128:
            canvas[rows, bar.left : bar.right] = PAPER


def _bar_row(bar: Rect, fraction: float) -> int:
    return bar.bottom - 1 - round(fraction * (bar.height - 1))


def _divide(maps: NDArray[np.float32], top: float) -> NDArray[np.float32]:
    """Maps whose value `top` becomes 1; all zeros stay so."""
    return maps / np.float32(top if top > 0 else 1)
