"""NumPy's `.npy` files, mapped into memory: only what is used is read, and nothing is unpickled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from PIL import Image as Pillow

from artifactgen.data.decoding import Mode
from artifactgen.data.intensity import Shading, Window, to_unit
from artifactgen.data.volume import Orientation
from artifactgen.errors import RecordError

SIGNATURE = npy.MAGIC_PREFIX
_MOST_CHANNELS = 4
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(frozen=True, slots=True)
class NpyVolume:
    """A volume in a `.npy` file; see `artifactgen.data.volume.Volume`."""

    stored: NDArray[Any]
    """(T, Z, Y, X)."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        t, z, y, x = self.stored.shape
        return t, z, y, x

    def orientation(self) -> Orientation:
        raise RecordError("a .npy file tells no directions; data.axis=z, y or x")

    def slices(self, frame: int, start: int, stop: int) -> NDArray[np.float32]:
        return self.stored[frame, start:stop].astype(np.float32)

    def shading(self, frame: int, place: int) -> Shading:
        return Shading()


@dataclass(frozen=True, slots=True)
class NpyHeader:
    """What a file says of its array."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran_order: bool
    offset: int

    @property
    def is_picture(self) -> bool:
        """Whether it is (H, W), or (H, W, C) of up to four channels; else it is a volume."""
        return len(self.shape) == 2 or (len(self.shape) == 3 and self.shape[2] <= _MOST_CHANNELS)


def read_npy_header(path: Path) -> NpyHeader:
    """Read what the array is, and whether the file can hold it.

    Raises:
        RecordError: no array of numbers of 2 to 4 axes, or cut short.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        try:
            version = npy.read_magic(file)
            shape, fortran_order, dtype = _HEADERS.get(version, npy.read_array_header_2_0)(file)
        except ValueError as error:
            raise RecordError(f"a broken header of a .npy file: {str(error)[:200]}") from error
        header = NpyHeader(shape, dtype, fortran_order, file.tell())
    _check(header, path.stat().st_size)
    return header


def map_npy(path: Path, header: NpyHeader) -> NDArray[Any]:
    """The array of a file, without reading it."""
    order: Any = "F" if header.fortran_order else "C"
    return np.memmap(path, header.dtype, "r", header.offset, header.shape, order)


def kind_of_npy(header: NpyHeader, *, mode: Mode, window: Window | None) -> tuple[int, str]:
    """Channels and type of what `read_npy_picture` gives."""
    if header.dtype in (np.uint8, np.bool_):
        return (3 if mode == "RGB" else 1), "uint8"
    channels = header.shape[2] if len(header.shape) == 3 else 1
    is_deep = header.dtype == np.uint16 and window is None
    return channels, "uint16" if is_deep else "float32"


def read_npy_picture(
    path: Path, header: NpyHeader, *, mode: Mode, window: Window | None
) -> NDArray[Any]:
    """A picture, (H, W) or (H, W, C).

    8 bits and booleans become RGB or grey as pictures of other formats do; 16 bits without sign
    and floats are taken as they are, other integers as values of a volume are, see `to_unit`. So
    are all but 8 bits where there is a `window`.

    Raises:
        RecordError: NaN or Inf among the pixels.
    """
    stored = np.array(map_npy(path, header))
    if stored.dtype in (np.uint8, np.bool_):
        bytes_HWC = stored * np.uint8(255) if stored.dtype == np.bool_ else stored
        squeezed = bytes_HWC[..., 0] if bytes_HWC.shape[2:] == (1,) else bytes_HWC
        return np.asarray(Pillow.fromarray(squeezed).convert(mode))
    if window is None and stored.dtype == np.uint16:
        return stored.astype(np.uint16)
    if window is None and stored.dtype.kind == "f":
        values = stored.astype(np.float32)
        if not np.isfinite(values).all():
            raise RecordError("NaN or Inf among the pixels")
        return values
    stored_CHW = np.moveaxis(np.atleast_3d(stored), -1, 0)
    return np.moveaxis(to_unit(stored_CHW, window, Shading()), 0, -1)


def as_volume(stored: NDArray[Any]) -> NpyVolume:
    """(Z, Y, X) or (T, Z, Y, X) as a volume."""
    return NpyVolume(stored if stored.ndim == 4 else stored[np.newaxis])


def _check(header: NpyHeader, size: int) -> None:
    shape, dtype = header.shape, header.dtype
    if dtype.kind not in "buif":
        raise RecordError(f"an array of {dtype.name}, which are no grey values or colours")
    if len(shape) not in (2, 3, 4):
        raise RecordError(f"an array of shape {shape}; a picture has 2 axes, a volume 3 or 4")
    if min(shape) < 1:
        raise RecordError(f"an array without pixels: shape {shape}")
    claimed = header.offset + math.prod(shape) * dtype.itemsize
    if claimed > size:
        raise RecordError(f"cut short: {size:,} of {claimed:,} bytes (shape {shape}, {dtype})")
