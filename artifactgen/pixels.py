"""Whether pixels are what a model expects: the range and type of some records, looked at.

A model answers whatever it is given. Twelve bits in a uint16 are nearly black, floats from 0 to 255
are far off what was trained on, and nothing in a shape tells.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from artifactgen.engine import Normalization
from artifactgen.types import Image

_DARK = {1: 8, 2: 2}
"""Bytes of an integer type to the part of white that some pixel should reach: an eighth, a half.
A night scene stays below in 8 bits; in 16, it is the usual sign of 10, 12 or 14 bits."""
_FAR = 16.0
"""Pixels normalised as in training lie within a few standard deviations."""


@dataclass(frozen=True, slots=True)
class PixelRange:
    """The type and the extremes of the finite pixels of some images."""

    dtype: np.dtype[Any]
    low: float
    high: float

    @classmethod
    def of(cls, images: Iterable[Image]) -> Self:
        """Of at least one image; NaN where no pixel is finite."""
        dtypes, lows, highs = zip(*map(_extremes, images), strict=True)
        return cls(dtypes[0], float(np.fmin.reduce(lows)), float(np.fmax.reduce(highs)))

    def __str__(self) -> str:
        return f"{self.dtype}, {_number(self.low)} to {_number(self.high)}"


def _extremes(image: Image) -> tuple[np.dtype[Any], float, float]:
    finite: NDArray[Any] = image[np.isfinite(image)]
    if not finite.size:
        return image.dtype, math.nan, math.nan
    return image.dtype, float(finite.min()), float(finite.max())


def describe(pixels: PixelRange, normalization: Normalization) -> str:
    """`uint8, 0 to 255, of 255; mean 0.485, 0.456, 0.406, std 0.229, 0.224, 0.225`."""
    mean, std = _listed(normalization.mean), _listed(normalization.std)
    if pixels.dtype.kind == "f":
        taken = f"mean {mean}, std {std}" if normalization.of_floats else "taken as they are"
        return f"{pixels}; {taken}"
    return f"{pixels}, white is {normalization.white(pixels.dtype):,}; mean {mean}, std {std}"


def doubts(pixels: PixelRange, normalization: Normalization) -> list[str]:
    """What looks wrong, with the option that would mend it; nothing where all is usual."""
    if not math.isfinite(pixels.high):
        return []
    if pixels.high == pixels.low:
        return [f"Every pixel of the records looked at is {_number(pixels.low)}."]
    if pixels.dtype.kind == "f":
        return _float_doubts(pixels, normalization)
    return _integer_doubts(pixels, normalization)


def _integer_doubts(pixels: PixelRange, normalization: Normalization) -> list[str]:
    white = normalization.white(pixels.dtype)
    reach = f"Pixels reach {_number(pixels.high)} of {pixels.dtype}"
    if pixels.high > white:
        return [f"{reach}, more than data.max_value={white}, and are brighter than white there."]
    if pixels.high * _DARK[pixels.dtype.itemsize] <= white:
        bits = 2 ** int(pixels.high).bit_length() - 1
        return [
            f"{reach}, where white is {white:,}: images are nearly black. data.max_value={bits}?"
        ]
    if max(normalization.mean) > 1:
        return [
            f"data.mean={_list(normalization.mean)} is for pixels from 0 to 255, and integer ones "
            f"are scaled to [0, 1] before: data.mean={_list(normalization.mean, 1 / 255)} "
            f"data.std={_list(normalization.std, 1 / 255)}?"
        ]
    return []


def _float_doubts(pixels: PixelRange, normalization: Normalization) -> list[str]:
    low, high = pixels.low, pixels.high
    span = f"Floats from {_number(low)} to {_number(high)}"
    mean, std = normalization.mean, normalization.std
    if normalization.of_floats:
        far = np.abs(np.subtract.outer([low, high], mean) / np.array(std)).max()
        if far <= _FAR:
            return []
        return [
            f"{span} reach {far:.0f} standard deviations with data.mean={_list(mean)} "
            f"data.std={_list(std)}: were these for another range?"
        ]
    if max(abs(low), abs(high)) > _FAR:
        scale = 255.0 if low >= 0 and high <= 255 else high
        return [
            f"{span} are not normalised, and are taken as they are: "
            f"data.mean={_list(mean, scale)} data.std={_list(std, scale)}?"
        ]
    if low >= 0 and high <= 1 and (set(mean), set(std)) != ({0.0}, {1.0}):
        return [
            f"{span} are taken as they are. If the model was trained on normalised ones: "
            f"data.mean={_list(mean)} data.std={_list(std)}; if not, data.mean=0 data.std=1."
        ]
    return []


def _number(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() else f"{value:.3g}"


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _list(values: Sequence[float], scale: float = 1.0) -> str:
    """As a command line takes it: without spaces."""
    return "[" + ",".join(f"{value * scale:.4g}" for value in values) + "]"
