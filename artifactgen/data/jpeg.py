"""JPEG without the copies that Pillow makes, where the pixels are Pillow's to the bit.

Both decode by libjpeg-turbo, with its exact transform and its smooth upsampling. What is rare, in
doubt or damaged is left to Pillow, and everything where simplejpeg is not installed.
https://libjpeg-turbo.org/About/Mathematics
"""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import features

_EQUAL = {
    "RGB": {("YCbCr", "444"), ("YCbCr", "422"), ("YCbCr", "420"), ("Gray", "Gray")},
    "L": {("Gray", "Gray")},
}
"""Colours and their subsampling, by what is asked for, whose pixels are the same in all versions.
A colour picture as grey is not of them: Pillow computes its grey from RGB."""


def decode_jpeg(
    data: bytes, *, mode: Literal["RGB", "L"], size: tuple[int, int]
) -> NDArray[np.uint8] | None:
    """Decode a JPEG file, or leave it to Pillow.

    Args:
        data: the whole file.
        mode: what is asked for: colours, or grey.
        size: (H, W) that Pillow found in it.

    Returns:
        (H, W, 3) or (H, W), as stored: an EXIF orientation is not applied; None where Pillow has
        to decode it.
    """
    library = _simplejpeg()
    if library is None:
        return None
    try:
        height, width, *stored = library.decode_jpeg_header(data)
        if (height, width) != size or tuple(stored) not in _EQUAL[mode]:
            return None
        image_HWC: NDArray[np.uint8] = library.decode_jpeg(
            data,
            "GRAY" if mode == "L" else "RGB",
            fastdct=False,
            fastupsample=False,
            strict=True,  # a warning of libjpeg is an error: Pillow decides what is made of it
        )
    except ValueError:
        return None
    return image_HWC[..., 0] if mode == "L" else image_HWC


@functools.cache
def _simplejpeg() -> ModuleType | None:
    """The package, where it is installed and Pillow itself decodes by libjpeg-turbo."""
    if not features.check_feature("libjpeg_turbo"):
        return None
    try:
        import simplejpeg
    except ImportError:
        return None
    package: ModuleType = simplejpeg
    return package
