"""Attention figures for pictures of many sizes: one for each form that pictures have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from threading import Lock

from artifactgen.rendering.colormaps import DEFAULT_COLORMAP
from artifactgen.rendering.figure.arrange import arrange
from artifactgen.rendering.figure.attention import AttentionFigure
from artifactgen.rendering.figure.geometry import FigureSpec, Rect, place_in

_LOWER = ((1, 8), (1, 4), (1, 3), (1, 2), (9, 16), (2, 3), (3, 4), (4, 5))
"""Height to width, as cameras and scanners have it."""
FORMS = (*_LOWER, (1, 1), *((width, height) for height, width in reversed(_LOWER)))


def form_of(size: Sequence[int], own: Sequence[int]) -> tuple[int, int]:
    """The nearest form to that of a picture of `size` = (H, W), among `FORMS` and `own`."""
    height, width = min(
        (own, *FORMS), key=lambda form: abs(math.log(size[0] / size[1] * form[1] / form[0]))
    )
    return height, width


def spec_for(spec: FigureSpec, size: Sequence[int]) -> FigureSpec:
    """The figure for pictures of `size` = (H, W), given that for the model's input."""
    return replace(spec, image_size=form_of(size, spec.image_size))


def mean_panel(spec: FigureSpec, size: tuple[int, int]) -> Rect:
    """Where a figure shows the mean over heads of its last block, laid over the first picture.

    Args:
        spec: of the figure for the model's input.
        size: (H, W) of the pictures that were drawn on.
    """
    own = spec_for(spec, size)
    return place_in(own, arrange(own).bands[-1].means[0], size)


class AttentionFigures:
    """Draws each figure's template when the first picture of its form comes; for any thread."""

    def __init__(self, spec: FigureSpec, *, colormap: str = DEFAULT_COLORMAP) -> None:
        self.own = AttentionFigure(spec, colormap=colormap)
        """Of pictures of the model's input size."""
        self._colormap = colormap
        self._figures = {spec: self.own}
        self._drawing = Lock()  # matplotlib's settings are of the whole process

    def of(self, size: tuple[int, int]) -> AttentionFigure:
        """The figure for pictures of `size` = (H, W)."""
        spec = spec_for(self.own.spec, size)
        with self._drawing:
            if spec not in self._figures:
                self._figures[spec] = AttentionFigure(spec, colormap=self._colormap)
            return self._figures[spec]
