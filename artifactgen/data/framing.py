"""A picture of any size as the model's input: resized and cropped as in the model's evaluation.

The geometry is that of timm's evaluation transform, and the filters are Pillow's, with which
timm and torchvision resize: for RGB pictures of 8 bits the result is theirs to the bit.
https://huggingface.co/docs/timm/reference/data
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from artifactgen.errors import RecordError
from artifactgen.types import Framing, Image, Region

_FILTERS = {
    "nearest": Pillow.Resampling.NEAREST,
    "bilinear": Pillow.Resampling.BILINEAR,
    "bicubic": Pillow.Resampling.BICUBIC,
    "lanczos": Pillow.Resampling.LANCZOS,
    "box": Pillow.Resampling.BOX,
    "hamming": Pillow.Resampling.HAMMING,
}
_MOST_STRETCHED = 16_384
"""Pixels of a side of the resized picture; a line of pixels would become a huge one."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the model's input lies in a picture, and the other way round."""

    resized: tuple[int, int]
    """(H, W) in pixels of the whole picture before the crop."""
    top: int
    """Of the crop in the resized picture; negative where it is padded."""
    left: int

    def region(self, have: Sequence[int], size: tuple[int, int]) -> Region:
        """What of a picture of `have` = (H, W) the input of `size` shows."""
        rows, columns = (own / new for own, new in zip(have, self.resized, strict=True))
        return Region(self.top, self.left, *size).scaled(rows, columns)


def frame(image_HWC: NDArray[Any], size: tuple[int, int], framing: Framing) -> Image:
    """Bring a picture to `size` = (H, W).

    Args:
        image_HWC: (H, W) or (H, W, C), uint8, uint16 or float32.
        size: of the result in pixels.
        framing: how it is resized and cropped.

    Returns:
        (C, H, W), contiguous, of the same type. uint16 is rounded; floats may leave their range
        by what the filter overshoots.

    Raises:
        RecordError: the picture is so narrow that it would be stretched beyond measure.
    """
    image_HWC = image_HWC if image_HWC.ndim == 3 else image_HWC[..., np.newaxis]
    place = placement(image_HWC.shape[:2], size, framing)
    resized_CHW = np.moveaxis(_resize(image_HWC, place.resized, framing), -1, 0)
    if resized_CHW.shape[1:] == size:
        return np.ascontiguousarray(resized_CHW)
    return _crop(resized_CHW, size, place, _fill(framing, image_HWC))


def placement(have: Sequence[int], size: tuple[int, int], framing: Framing) -> Placement:
    """How a picture of `have` = (H, W) is resized, and where it is then cropped to `size`."""
    if min(have) < 1:
        raise RecordError("a picture without pixels")
    scaled = tuple(math.floor(side / framing.crop_pct) for side in size)
    resized = _scaled_size(have, (scaled[0], scaled[1]), framing)
    if max(resized) > max(_MOST_STRETCHED, *size, *have):
        raise RecordError(
            f"{have[0]:,} × {have[1]:,} pixels would be stretched to {resized[0]:,} × "
            f"{resized[1]:,}: too narrow; data.crop_mode=squash or border takes it"
        )
    down = framing.rounds_down
    top, left = (_start(r, s, down=down) for r, s in zip(resized, size, strict=True))
    return Placement(resized, top, left)


def _start(resized: int, side: int, *, down: bool) -> int:
    """Of a centred crop; a border's half pixel is rounded down by all libraries."""
    if resized < side:
        return -((side - resized) // 2)
    return (resized - side) // 2 if down else round((resized - side) / 2)


def _scaled_size(have: Sequence[int], scaled: tuple[int, int], framing: Framing) -> tuple[int, int]:
    if framing.crop_mode == "squash":
        return scaled
    height, width = have
    if framing.crop_mode == "center" and scaled[0] == scaled[1]:
        # torchvision's Resize of one number: the shorter side gets it, the longer is cut down.
        longer = int(scaled[0] * max(have) / min(have))
        return (longer, scaled[0]) if width <= height else (scaled[0], longer)
    ratios = height / scaled[0], width / scaled[1]
    ratio = max(ratios) if framing.crop_mode == "border" else min(ratios)
    return max(round(height / ratio), 1), max(round(width / ratio), 1)


def _resize(image_HWC: NDArray[Any], size: tuple[int, int], framing: Framing) -> NDArray[Any]:
    if image_HWC.shape[:2] == size:
        return image_HWC
    if image_HWC.dtype == np.uint8 and image_HWC.shape[-1] == 3:
        picture = Pillow.fromarray(np.ascontiguousarray(image_HWC))
        return np.asarray(picture.resize(size[::-1], _FILTERS[framing.interpolation]))
    channels = [
        _resize_channel(image_HWC[..., c], size, framing) for c in range(image_HWC.shape[2])
    ]
    return np.stack(channels, -1)


def _resize_channel(
    channel_HW: NDArray[Any], size: tuple[int, int], framing: Framing
) -> NDArray[Any]:
    dtype = channel_HW.dtype
    wide = channel_HW if dtype == np.uint8 else channel_HW.astype(np.float32)
    picture = Pillow.fromarray(np.ascontiguousarray(wide))
    resized_HW = np.asarray(picture.resize(size[::-1], _FILTERS[framing.interpolation]))
    if dtype != np.uint16:
        return resized_HW
    rounded: NDArray[Any] = np.rint(resized_HW).clip(0, np.iinfo(np.uint16).max)
    return rounded.astype(np.uint16)


def _crop(
    resized_CHW: NDArray[Any], size: tuple[int, int], place: Placement, fill: NDArray[Any]
) -> Image:
    out_CHW = np.empty((len(resized_CHW), *size), resized_CHW.dtype)
    out_CHW[:] = fill[:, np.newaxis, np.newaxis]
    rows = _overlap(place.top, size[0], place.resized[0])
    columns = _overlap(place.left, size[1], place.resized[1])
    out_CHW[:, rows[1], columns[1]] = resized_CHW[:, rows[0], columns[0]]
    return out_CHW


def _overlap(start: int, side: int, resized: int) -> tuple[slice, slice]:
    """What to take of an axis of the resized picture, and where it goes in the crop."""
    first = max(start, 0)
    length = min(start + side, resized) - first
    return slice(first, first + length), slice(first - start, first - start + length)


def _fill(framing: Framing, image_HWC: NDArray[Any]) -> NDArray[Any]:
    """The colour of a border, of the type of the picture."""
    channels, dtype = image_HWC.shape[-1], image_HWC.dtype
    values = framing.border if len(framing.border) == channels else framing.border[:1] * channels
    if framing.crop_mode != "border":
        return np.zeros(channels, dtype)
    if dtype.kind == "f":
        return np.array(values, dtype)
    scaled: NDArray[Any] = np.rint(np.array(values) * np.iinfo(dtype).max)
    return scaled.astype(dtype)
