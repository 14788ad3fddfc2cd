"""NIfTI-1 files (`.nii`, `.nii.gz`), read fast and without trust in what their headers claim."""

from __future__ import annotations

import math
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np
from isal import igzip
from isal.igzip_lib import IsalError
from nibabel.nifti1 import Nifti1Header
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from artifactgen.data.image import require_pixels
from artifactgen.errors import RecordError

MAX_BYTES = 8 << 30
_HEADER_BYTES = 348
_EXTENSION_BYTES = 4
"""Behind the header of a single file, whether there are extensions or not."""
_CHUNK_BYTES = 1 << 20
_DEFLATE_MAX_RATIO = 1032
"""Deflate cannot expand further: https://zlib.net/zlib_tech.html (Maximum Compression Factor)."""


@dataclass(frozen=True, slots=True)
class Volume:
    """Voxels as the file stores them; a value is `stored * slope + intercept`."""

    stored: NDArray[Any]
    """Axes reversed, without a copy: (T, Z, Y, X) of a file of shape (X, Y, Z, T)."""
    slope: float
    intercept: float
    affine: NDArray[Any]
    """(4, 4) float64: from indices (x, y, z) to mm to the right, to the front and up."""


@dataclass(frozen=True, slots=True)
class Voxels:
    """Where the voxels lie in the decompressed file, and what they are."""

    shape: tuple[int, ...]
    """(X, Y, Z, T), as far as there are that many."""
    dtype: np.dtype[Any]
    offset: int
    slope: float
    intercept: float
    affine: NDArray[Any]

    @property
    def stop(self) -> int:
        """End of the voxels in bytes; a Python integer, which no header can make overflow."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize


class _GzipFile(igzip.IGzipFile):  # type: ignore[misc]
    """Decompresses into the caller's array; Python's own `readinto` takes a copy of each block."""

    def readinto(self, target: memoryview) -> int:
        count: int = self._buffer.readinto(target)
        return count


def read_frames(
    path: Path, frames: Sequence[int], *, z: int | None = None, max_pixels: int | None = None
) -> NDArray[np.float32]:
    """Frames of one slice of a cine, as a viewer shows them.

    A file of shape (X, Y, Z, T) gives (len(frames), Y, X): rows run along Y and columns along X,
    both in the file's own direction. No flip is made: the release of ACDC carries no orientation.

    Args:
        path: a 4-D NIfTI-1 file.
        frames: indices of frames, from 0.
        z: index of the slice, from 0; None = the middle one, Z // 2.
        max_pixels: see `read_nifti`.

    Raises:
        RecordError: the file is no such cine, is not 4-D, lacks a frame, or holds NaN or Inf there.
        OSError: it cannot be read.
    """
    volume = read_nifti(path, ndim=4, max_pixels=max_pixels)
    n_frames, n_slices = volume.stored.shape[:2]
    if missing := [frame for frame in frames if not 0 <= frame < n_frames]:
        raise RecordError(f"{path}: no frame {missing[0] + 1}, it has {n_frames} frames")
    stored_FYX = volume.stored[list(frames), n_slices // 2 if z is None else z]
    with np.errstate(over="ignore"):
        values_FYX = (stored_FYX * volume.slope + volume.intercept).astype(np.float32)
    if not np.isfinite(values_FYX).all():
        raise RecordError(f"{path}: NaN or Inf among the pixels")
    return values_FYX


def read_nifti(
    path: Path,
    *,
    ndim: int | tuple[int, ...] | None = None,
    max_bytes: int = MAX_BYTES,
    max_pixels: int | None = None,
) -> Volume:
    """Read all voxels of a NIfTI-1 file; its header is checked before memory is taken.

    A slope of 0 means "not scaled", as the standard says
    (https://nifti.nimh.nih.gov/nifti-1/documentation/nifti1fields/nifti1fields_pages/scl_slopeinter.html).
    A NaN in the affine is refused, although no pixel depends on it: such a header is broken.

    Args:
        path: the file; gzip is recognised by its content.
        ndim: number of axes that the file must have, or several numbers; None = any.
        max_bytes: most bytes that the decompressed file may hold.
        max_pixels: most pixels that one of its pictures, Y × X, may have: `data.max_pixels`.

    Raises:
        RecordError: the file is no NIfTI-1, is cut or corrupt, or its header makes no sense.
        OSError: it cannot be opened or read, with the number that the system gave.
    """
    with _explained(path):
        return _read(path, ndim=ndim, max_bytes=max_bytes, max_pixels=max_pixels)


def read_nifti_header(path: Path, *, ndim: int | tuple[int, ...] | None = None) -> Voxels:
    """Read and check the header alone; arguments and errors as those of `read_nifti`."""
    with _explained(path), _opened(path) as (stream, capacity):
        voxels = _parse_header(stream.read(_HEADER_BYTES), ndim=ndim)
        _check_size(voxels, capacity=capacity, max_bytes=MAX_BYTES)
        return voxels


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except RecordError as error:
        raise RecordError(f"{path}: {error}") from error.__cause__
    except EOFError as error:
        raise RecordError(f"{path}: cut short: the compressed data ends too early") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise RecordError(f"{path}: {error}") from error  # of gzip, about the content
    except IsalError as error:  # type: ignore[misc]  # isal's stub declares an instance
        raise RecordError(f"{path}: corrupt compressed data: {error}") from error


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BufferedIOBase, int]]:
    """The decompressed stream of a file, and how many bytes that could hold at most."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise RecordError("not a regular file")
    with path.open("rb") as raw:
        is_gzip = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        stream: BufferedIOBase = _GzipFile(fileobj=raw) if is_gzip else raw
        yield stream, path.stat().st_size * (_DEFLATE_MAX_RATIO if is_gzip else 1)


def _read(
    path: Path, *, ndim: int | tuple[int, ...] | None, max_bytes: int, max_pixels: int | None
) -> Volume:
    with _opened(path) as (stream, capacity):
        voxels = _parse_header(stream.read(_HEADER_BYTES), ndim=ndim)
        if max_pixels is not None:
            require_pixels(voxels.shape[1::-1], max_pixels)
        _check_size(voxels, capacity=capacity, max_bytes=max_bytes)
        body = _read_body(stream, voxels.stop - _HEADER_BYTES)
        if isinstance(stream, igzip.IGzipFile):
            _drain(stream, max_bytes - voxels.stop)
    flat = body[voxels.offset - _HEADER_BYTES :].view(voxels.dtype)
    stored = flat.reshape(voxels.shape[::-1])
    return Volume(stored, voxels.slope, voxels.intercept, voxels.affine)


def _parse_header(block: bytes, *, ndim: int | tuple[int, ...] | None) -> Voxels:
    if len(block) < _HEADER_BYTES:
        raise RecordError(f"too short for a NIfTI header: {len(block)} of {_HEADER_BYTES} bytes")
    header = Nifti1Header(block, check=False)
    if header["sizeof_hdr"] != _HEADER_BYTES or bytes(header["magic"].item())[:3] != b"n+1":
        raise RecordError("not a single-file NIfTI-1 header")
    try:
        return _checked_voxels(header, ndim=ndim)
    except (HeaderDataError, LookupError, ValueError, OverflowError) as error:
        raise RecordError(f"broken header: {error}") from error


def _checked_voxels(header: Any, *, ndim: int | tuple[int, ...] | None) -> Voxels:
    shape = tuple(int(n) for n in header.get_data_shape())
    dtype = header.get_data_dtype()
    offset = header.get_data_offset()
    slope, intercept = header.get_slope_inter()
    allowed = (ndim,) if isinstance(ndim, int) else ndim
    if allowed is not None and len(shape) not in allowed:
        expected = " or ".join(f"{n}-D" for n in allowed)
        raise RecordError(f"{len(shape)}-D of shape {shape}; expected {expected}")
    if not shape or min(shape) < 1:
        raise RecordError(f"no voxels: shape {shape}")
    if dtype.kind not in "iuf":
        raise RecordError(f"voxels of type {dtype} are not grey values")
    if offset < _HEADER_BYTES + _EXTENSION_BYTES:
        raise RecordError(f"broken header: voxels start at byte {offset}, inside the header")
    affine = header.get_best_affine()
    if not np.isfinite(affine).all():
        raise RecordError("NaN or Inf in the affine")
    slope, intercept = (1.0, 0.0) if slope is None else (slope, intercept)
    return Voxels(shape, dtype, offset, slope, intercept, affine)


def _check_size(voxels: Voxels, *, capacity: int, max_bytes: int) -> None:
    """Refuse a header's claim that the file cannot hold or that exceeds the limit."""
    claim = f"the header claims {voxels.stop:,} bytes (shape {voxels.shape}, {voxels.dtype})"
    if voxels.stop > capacity:
        raise RecordError(f"{claim}, a file of this size holds at most {capacity:,}")
    if voxels.stop > max_bytes:
        raise RecordError(f"{claim}, more than the limit of {max_bytes:,}")


def _read_body(stream: BufferedIOBase, n_bytes: int) -> NDArray[np.uint8]:
    body = np.empty(n_bytes, np.uint8)
    done = 0
    while done < n_bytes:
        count = stream.readinto(body[done : done + _CHUNK_BYTES].data)
        if not count:
            raise RecordError(f"cut short: {done:,} of {n_bytes:,} bytes after the header")
        done += count
    return body


def _drain(stream: BufferedIOBase, max_bytes: int) -> None:
    """Read on to the end: only there is the checksum compared."""
    while chunk := stream.read(_CHUNK_BYTES):
        max_bytes -= len(chunk)
        if max_bytes < 0:
            raise RecordError("more data than the limit follows the voxels")
