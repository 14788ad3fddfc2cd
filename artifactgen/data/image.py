"""Geometry and intensity of (C, H, W) images, before the model's own preprocessing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from artifactgen.errors import RecordError
from artifactgen.types import Image, Region

MAX_PIXELS = 100_000_000
"""Of a picture, unless `data.max_pixels` says otherwise."""


def require_pixels(size: Sequence[int], max_pixels: int) -> None:
    """`RecordError` for a picture of `size` = (H, W) that is too large to be taken into memory."""
    if (pixels := math.prod(size)) > max_pixels:
        raise RecordError(
            f"{size[0]:,} × {size[1]:,} = {pixels:,} pixels are more than "
            f"data.max_pixels={max_pixels}; raise it if the memory is there"
        )


def channels_first(image_HWC: Image) -> Image:
    """(H, W, C) as (C, H, W), contiguous; faster than NumPy for uint8 and uint16."""
    if image_HWC.dtype.itemsize > 2 or image_HWC.shape[-1] > 4:
        return np.ascontiguousarray(image_HWC.transpose(2, 0, 1))
    image_CHW = np.empty((image_HWC.shape[-1], *image_HWC.shape[:2]), image_HWC.dtype)
    cv2.split(np.ascontiguousarray(image_HWC), list(image_CHW))
    return image_CHW


def centre_crop_or_pad(image_CHW: Image, size: tuple[int, int]) -> Image:
    """Cut or zero-pad each axis around its centre to `size` = (H, W) pixels; keeps the dtype.

    Where the difference is odd, the extra pixel is cut or added at the bottom or right.
    """
    out_CHW = np.zeros((image_CHW.shape[0], *size), image_CHW.dtype)
    rows, columns = (
        _overlap(have, want) for have, want in zip(image_CHW.shape[1:], size, strict=True)
    )
    out_CHW[:, rows[1], columns[1]] = image_CHW[:, rows[0], columns[0]]
    return out_CHW


def centred(size: Sequence[int], crop: tuple[int, int]) -> Region:
    """What `centre_crop_or_pad` to `crop` takes of an image of `size` = (H, W)."""
    pairs = zip(size, crop, strict=True)
    top, left = (rows[0].start - rows[1].start for rows in (_overlap(*pair) for pair in pairs))
    return Region(top, left, *crop)


def _overlap(have: int, want: int) -> tuple[slice, slice]:
    """What to take of an axis of `have` pixels, and where it goes in one of `want` pixels."""
    length = min(have, want)
    source, target = (have - length) // 2, (want - length) // 2
    return slice(source, source + length), slice(target, target + length)


def scale_to_unit(image_CHW: Image, *, as_in: Image | None = None) -> NDArray[np.float32]:
    """Scale each channel's own minimum and maximum to 0 and 1; a constant channel becomes zeros.

    Computed in float64, since the range of a float32 channel may exceed float32.

    Args:
        image_CHW: to be scaled.
        as_in: a part of it whose range is taken instead; what is beyond is clipped to [0, 1].
    """
    wide_CHW = image_CHW.astype(np.float64)
    part_CHW = wide_CHW if as_in is None else as_in.astype(np.float64)
    lowest = part_CHW.min(axis=(1, 2), keepdims=True)
    span = part_CHW.max(axis=(1, 2), keepdims=True) - lowest
    scaled_CHW: NDArray[Any] = (wide_CHW - lowest) / np.where(span > 0, span, 1)
    return (scaled_CHW if as_in is None else scaled_CHW.clip(0, 1)).astype(np.float32)


def resize(image_CHW: Image, size: tuple[int, int]) -> Image:
    """Resize to `size` = (H, W) pixels, any number of channels; keeps the dtype and the range.

    Axes that shrink are averaged over the area of each new pixel, so that nothing aliases; axes
    that grow are interpolated linearly. Neither leaves the range of the input, as cubic
    interpolation does: what was in [0, 1] stays there. Integers are rounded to the nearest.
    The same size returns the same array.
    """
    if image_CHW.shape[1:] == size:
        return image_CHW
    return np.stack([_resize_channel(channel_HW, size) for channel_HW in image_CHW])


def _resize_channel(image_HW: Image, size: tuple[int, int]) -> Image:
    height, width = size
    shrunk = min(image_HW.shape[1], width), min(image_HW.shape[0], height)
    try:
        image_HW = cv2.resize(np.ascontiguousarray(image_HW), shrunk, interpolation=cv2.INTER_AREA)
        resized_HW: Image = cv2.resize(image_HW, (width, height), interpolation=cv2.INTER_LINEAR)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError(str(error)) from error
        raise
    return resized_HW
