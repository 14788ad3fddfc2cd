"""The bytes of a picture file as an array: PNG, JPEG, TIFF, WebP, GIF, BMP and PNM, by Pillow.

What becomes of each kind of pixels:

========================  ====================================================================
stored as                 becomes
========================  ====================================================================
1 bit, grey, palette      grey or RGB of 8 bits, as asked for; a palette's colours are looked up
grey or RGB with alpha    likewise, alpha left out (the colours behind it stay as stored)
CMYK, YCbCr, Lab, HSV     RGB of 8 bits, as Pillow converts it: no colour profile is applied
grey of 16 bits           uint16, one channel
grey of 32 bits, integer  uint16 where all values fit, else no record
float                     float32, one channel, no record with NaN or Inf
RGB of 16 bits            RGB of the upper 8, as Pillow reads it
several pictures          the first
EXIF orientation          left as stored, as timm and torchvision do, or applied, as `datasets` does
========================  ====================================================================
"""

from __future__ import annotations

import io
import logging
import warnings
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from artifactgen.data.image import require_pixels
from artifactgen.data.jpeg import decode_jpeg
from artifactgen.errors import RecordError

# Of the whole process. `data.max_pixels` stands for the one; and what is wrong with a picture is
# an error, or nothing: that its EXIF is odd is no line for the terminal.
Pillow.MAX_IMAGE_PIXELS = None
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
logging.getLogger("PIL").setLevel(logging.CRITICAL)

Mode = Literal["RGB", "L"]
"""Of pictures of 8 bits: colours, or grey (ITU-R 601)."""

_DEEP = {"I;16": "uint16", "I;16B": "uint16", "I;16L": "uint16", "I": "uint16", "F": "float32"}
"""Pillow's modes of more than 8 bits, and the type that they are read as."""


def decode_picture(
    data: bytes, *, mode: Mode, max_pixels: int, exif_rotate: bool = False
) -> NDArray[Any]:
    """Decode a picture file.

    Args:
        data: the whole file.
        mode: what 8 bits of any kind become.
        max_pixels: most pixels that it may have, H × W; looked at before any is decoded.
        exif_rotate: whether to turn it as its EXIF orientation says.

    Returns:
        (H, W, 3) uint8 for `RGB`, (H, W) uint8 for `L`; (H, W) uint16 or float32 for grey of more
        than 8 bits.

    Raises:
        RecordError: no picture that Pillow knows, too large, or with values that no pixel has.
        OSError: it is cut short or broken (of Pillow, without a number).
    """
    with _open(data) as picture:
        size = (picture.height, picture.width)
        require_pixels(size, max_pixels)
        if picture.format == "JPEG" and not exif_rotate:
            image = decode_jpeg(data, mode=mode, size=size)
            if image is not None:
                return image
        picture.load()
        if exif_rotate:
            ImageOps.exif_transpose(picture, in_place=True)
        return pixels_of(picture, mode)


def pixels_of(picture: Pillow.Image, mode: Mode) -> NDArray[Any]:
    """The pixels of a picture of Pillow's, see `decode_picture`.

    Raises:
        RecordError: it has values that no pixel has.
    """
    if picture.mode in _DEEP:
        return _deep(np.asarray(picture))
    return np.asarray(picture if picture.mode == mode else picture.convert(mode))


def dtype_of_picture(data: bytes) -> str:
    """`uint8`, `uint16` or `float32`: what a picture is read as; only its header is looked at.

    Raises:
        RecordError: no picture that Pillow knows.
    """
    with _open(data) as picture:
        return _DEEP.get(picture.mode, "uint8")


def _open(data: bytes) -> Pillow.Image:
    if not data:
        raise RecordError("empty (0 bytes)")
    try:
        return Pillow.open(io.BytesIO(data))
    except UnidentifiedImageError as error:
        raise RecordError("no picture that could be read, by its first bytes") from error


def _deep(stored_HW: NDArray[Any]) -> NDArray[Any]:
    if stored_HW.dtype.kind == "f":
        if not np.isfinite(stored_HW).all():
            raise RecordError("NaN or Inf among the pixels")
        return stored_HW.astype(np.float32, copy=False)
    low, high = int(stored_HW.min()), int(stored_HW.max())
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise RecordError(f"values from {low:,} to {high:,}: only those of 16 bits are read")
    return stored_HW.astype(np.uint16)
