"""How a person sees a sample, at its own size or another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from artifactgen.types import Image


def display_images(
    image_CHW: Image, frame_names: Sequence[str] = (), *, max_value: int | None = None
) -> list[NDArray[np.uint8]]:
    """The pictures of a sample, each (H, W, 3) uint8 RGB.

    With `frame_names` every channel is a grey picture of its own, such as the frames of a cine.
    Without, three channels are one RGB picture, and any other number shows its first channel in
    grey: more channels have no colours that a person would agree on.

    Brightness follows from the type, for each picture by itself: uint8 and uint16 from 0 to
    `max_value`, or over the full range of the type; floats within [0, 1] as they are; all else from
    its own smallest to its own largest finite value. NaN is black, an infinity is the end of the
    range, a constant is black.

    Args:
        image_CHW: any real type; (C, H, W).
        frame_names: one name for each channel, or none.
        max_value: white of uint8 and uint16; what is above is white as well.
    """
    channels = len(image_CHW)
    assert not frame_names or len(frame_names) == channels, f"{frame_names} for {channels} channels"
    if max_value is not None and image_CHW.dtype in (np.uint8, np.uint16):
        image_CHW = np.minimum(image_CHW, max_value).astype(np.float32) / np.float32(max_value)
    if frame_names:
        return [_grey(channel_HW) for channel_HW in image_CHW]
    if channels == 3:
        return [np.ascontiguousarray(_to_uint8(image_CHW).transpose(1, 2, 0))]
    return [_grey(image_CHW[0])]


def resize_picture(image_HW3: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture at another (H, W): cubic where it grows, by area where it shrinks."""
    grows = math.prod(size) >= math.prod(image_HW3.shape[:2])
    resized: NDArray[np.uint8] = cv2.resize(
        image_HW3, size[::-1], interpolation=cv2.INTER_CUBIC if grows else cv2.INTER_AREA
    )
    return resized


def _grey(channel_HW: NDArray[Any]) -> NDArray[np.uint8]:
    return np.repeat(_to_uint8(channel_HW)[..., None], 3, axis=-1)


def _to_uint8(picture: NDArray[Any]) -> NDArray[np.uint8]:
    if picture.dtype == np.uint8:
        return picture
    if picture.dtype == np.uint16:
        return ((picture.astype(np.uint32) + 128) // 257).astype(np.uint8)
    unit = _to_unit_range(picture.astype(np.float64))
    return np.rint(unit * 255).astype(np.uint8)


def _to_unit_range(picture: NDArray[np.float64]) -> NDArray[np.float64]:
    finite = picture[np.isfinite(picture)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    clean = np.nan_to_num(picture, nan=low, posinf=high, neginf=low)
    if low >= 0 and high <= 1:
        return clean
    return (clean - low) / (high - low or 1.0)
