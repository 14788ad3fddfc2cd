"""A NIfTI file as a volume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifactgen.data.intensity import Shading
from artifactgen.data.nifti import read_nifti, read_nifti_header
from artifactgen.data.volume import Orientation, orientation_of

_NDIM = (3, 4)


@dataclass(frozen=True, slots=True)
class NiftiVolume:
    """See `artifactgen.data.volume.Volume`."""

    stored: NDArray[Any]
    """(T, Z, Y, X)."""
    slope: float
    intercept: float
    affine: NDArray[Any]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        t, z, y, x = self.stored.shape
        return t, z, y, x

    def orientation(self) -> Orientation:
        return orientation_of(self.affine)

    def slices(self, frame: int, start: int, stop: int) -> NDArray[np.float32]:
        stored = self.stored[frame, start:stop]
        with np.errstate(over="ignore"):
            scaled: NDArray[Any] = stored * self.slope + self.intercept
            return scaled.astype(np.float32)

    def shading(self, frame: int, place: int) -> Shading:
        return Shading()


def open_nifti(path: Path, *, max_pixels: int, header_only: bool = False) -> NiftiVolume:
    """Read a volume of 3 or 4 axes; errors as those of `read_nifti`.

    Args:
        path: the file.
        max_pixels: see `read_nifti`.
        header_only: whether its voxels are left out; they are zeros then, which take no memory.
    """
    if header_only:
        head = read_nifti_header(path, ndim=_NDIM)
        zeros = np.broadcast_to(np.zeros((), np.float32), head.shape[::-1])
        return NiftiVolume(_with_frames(zeros), head.slope, head.intercept, head.affine)
    volume = read_nifti(path, ndim=_NDIM, max_pixels=max_pixels)
    return NiftiVolume(_with_frames(volume.stored), volume.slope, volume.intercept, volume.affine)


def _with_frames(stored: NDArray[Any]) -> NDArray[Any]:
    return stored if stored.ndim == 4 else stored[np.newaxis]
