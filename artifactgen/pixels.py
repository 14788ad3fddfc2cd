"""Whether pixels are what a model expects: the range and type of some records, looked at.

A model answers whatever it is given. Twelve bits in a uint16 are dark, floats from 0 to 255
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
FAR = 16.0
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
    """`uint8, 0 to 255, white is 255; mean 0.485, 0.456, 0.406, std 0.229, 0.224, 0.225`."""
    if not normalization.applies_to(pixels.dtype):
        return f"{pixels}; taken as they are"
    mean, std = _listed(normalization.mean), _listed(normalization.std)
    stated = f" as the checkpoint states ({normalization.stated_in})"
    taken = f"mean {mean}, std {std}{stated if normalization.stated_in else ''}"
    if pixels.dtype.kind == "f":
        return f"{pixels}; {taken}"
    return f"{pixels}, white is {normalization.white(pixels.dtype):,}; {taken}"


def contradictions(pixels: PixelRange, normalization: Normalization) -> list[str]:
    """What a checkpoint states of another normalisation than is done to these pixels."""
    return list(normalization.doubts) if normalization.applies_to(pixels.dtype) else []


def doubts(pixels: PixelRange, normalization: Normalization) -> list[str]:
    """What looks wrong, with the option that would mend it; nothing where all is usual."""
    if not math.isfinite(pixels.high):
        return []
    if pixels.high == pixels.low:
        return [f"Every pixel of the records looked at is {_number(pixels.low)}."]
    if pixels.dtype.kind != "f":
        return _integer_doubts(pixels, normalization)
    return (_normalised_doubts if normalization.of_floats else _float_doubts)(pixels, normalization)


def _integer_doubts(pixels: PixelRange, normalization: Normalization) -> list[str]:
    white = normalization.white(pixels.dtype)
    reach = f"Pixels reach {_number(pixels.high)} of {pixels.dtype}"
    if pixels.high > white:
        return [f"{reach}, more than data.max_value={white}, and are brighter than white there."]
    is_dark = pixels.high * _DARK[pixels.dtype.itemsize] <= white
    if is_dark and normalization.max_value is None:
        bits = 2 ** int(pixels.high).bit_length() - 1
        return [f"{reach}, where white is {white:,}: images are dark. data.max_value={bits}?"]
    mean, std = normalization.mean, normalization.std
    if max(mean) > 1:
        return [
            f"data.mean={_list(mean)} is for pixels from 0 to 255, and integer ones are scaled to "
            f"[0, 1] before: data.mean={_list(mean, 1 / 255)} data.std={_list(std, 1 / 255)}?"
        ]
    return []


def _normalised_doubts(pixels: PixelRange, normalization: Normalization) -> list[str]:
    mean, std = normalization.mean, normalization.std
    far = np.abs(np.subtract.outer([pixels.low, pixels.high], mean) / np.array(std)).max()
    if far <= FAR:
        return []
    return [
        f"{_span(pixels)} reach {far:.0f} standard deviations with data.mean={_list(mean)} "
        f"data.std={_list(std)}: were these for another range?"
    ]


def _float_doubts(pixels: PixelRange, normalization: Normalization) -> list[str]:
    """Of floats that are taken as they are."""
    low, high = pixels.low, pixels.high
    mean, std = normalization.mean, normalization.std
    if max(abs(low), abs(high)) > FAR:
        advice = "data.mean and data.std of the training, for this range?"
        if low >= 0:
            scale = 255.0 if high <= 255 else high
            advice = f"data.mean={_list(mean, scale)} data.std={_list(std, scale)}?"
        return [f"{_span(pixels)} are not normalised, and are taken as they are: {advice}"]
    if low >= 0 and high <= 1 and (set(mean), set(std)) != ({0.0}, {1.0}):
        return [
            f"{_span(pixels)} are taken as they are. If the model was trained on normalised ones: "
            f"data.mean={_list(mean)} data.std={_list(std)}; if not, data.mean=0 data.std=1."
        ]
    return []


def _span(pixels: PixelRange) -> str:
    return f"Floats from {_number(pixels.low)} to {_number(pixels.high)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value.is_integer() else f"{value:.3g}"


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)


def _list(values: Sequence[float], scale: float = 1.0) -> str:
    """As a command line takes it: without spaces."""
    return "[" + ",".join(f"{value * scale:.4g}" for value in values) + "]"
