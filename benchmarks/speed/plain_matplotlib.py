"""The attention figure as matplotlib alone draws it: axes, images, colour bar, texts."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray

from artifactgen.rendering.figure.attention import AttentionFigure
from artifactgen.rendering.figure.geometry import Band, Rect

DOTS_PER_INCH = 300
CLIP_PERCENTILE = 99.5


def figure_png(
    figure: AttentionFigure,
    images: Sequence[NDArray[np.uint8]],
    attention_LAhw: NDArray[np.float32],
    *,
    title: str,
) -> bytes:
    """A fresh figure of the same size and arrangement as ours, as `savefig` writes it at 300 dpi.

    Every panel is `imshow` in axes of its own; maps are interpolated by matplotlib.
    """
    height, width = figure.geometry.size
    drawn = plt.figure(figsize=(width / DOTS_PER_INCH, height / DOTS_PER_INCH), dpi=DOTS_PER_INCH)
    drawn.suptitle(title, fontsize=9)
    for name, band, attention_Ahw in zip(
        figure.spec.blocks, figure.geometry.bands, attention_LAhw, strict=True
    ):
        drawn.text(band.heading.left / width, 1 - band.heading.bottom / height, name, fontsize=7)
        _draw_band(drawn, band, images, attention_Ahw)
    content = io.BytesIO()
    drawn.savefig(content, format="png", dpi=DOTS_PER_INCH)
    plt.close(drawn)
    return content.getvalue()


def _draw_band(
    drawn: Figure,
    band: Band,
    images: Sequence[NDArray[np.uint8]],
    attention_Ahw: NDArray[np.float32],
) -> None:
    mean_hw = attention_Ahw.mean(0)
    for image, plain, covered in zip(images, band.inputs, band.means, strict=True):
        _axes(drawn, plain, "Input").imshow(image, aspect="auto", interpolation="bicubic")
        axes = _axes(drawn, covered, "Mean over heads")
        frame = (0, image.shape[1], image.shape[0], 0)
        axes.imshow(image, aspect="auto", interpolation="bicubic", extent=frame)
        _lay_over(axes, mean_hw / mean_hw.max(), frame)
    top = float(np.percentile(attention_Ahw, CLIP_PERCENTILE, method="higher"))
    for number, (panel, map_hw) in enumerate(zip(band.heads, attention_Ahw, strict=True), 1):
        axes = _axes(drawn, panel, f"Head {number}")
        last = _show_map(axes, map_hw, top)
    drawn.colorbar(last, cax=drawn.add_axes(_place(drawn, band.colorbar)))


def _show_map(axes: Any, map_hw: NDArray[np.float32], top: float) -> Any:
    return axes.imshow(
        map_hw,
        cmap="inferno",
        norm=Normalize(0, top),
        aspect="auto",
        interpolation="bilinear",
        interpolation_stage="data",
    )


def _lay_over(axes: Any, map01_hw: NDArray[np.float32], frame: tuple[int, ...]) -> None:
    """As ours: the colour fades in over the lower half of the map."""
    axes.imshow(
        map01_hw,
        cmap="inferno",
        norm=Normalize(0, 1),
        alpha=0.6 * np.minimum(1, 2 * map01_hw),
        aspect="auto",
        interpolation="bilinear",
        interpolation_stage="data",
        extent=frame,
    )


def _axes(drawn: Figure, panel: Rect, title: str) -> Any:
    axes = drawn.add_axes(_place(drawn, panel))
    axes.set_title(title, fontsize=5.5, loc="left", pad=2)
    axes.axis("off")
    return axes


def _place(drawn: Figure, rect: Rect) -> tuple[float, float, float, float]:
    width, height = drawn.get_size_inches() * DOTS_PER_INCH
    return rect.left / width, 1 - rect.bottom / height, rect.width / width, rect.height / height
