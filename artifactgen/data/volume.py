"""Pictures cut out of volumes: which slice, along which axis, turned as a viewer shows it.

Axes of a volume are stored as (T, Z, Y, X). Anatomical directions are those of DICOM: left,
posterior, superior. https://dicom.nema.org/medical/dicom/current/output/chtml/part03/sect_C.7.6.2.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from nibabel.orientations import io_orientation
from numpy.typing import NDArray

from artifactgen.data.intensity import Shading
from artifactgen.errors import RecordError

Axis = Literal["z", "y", "x", "axial", "coronal", "sagittal"]
"""Across which slices are cut: an axis as it is stored, or an anatomical one."""

_STORED: dict[str, tuple[int, int, int]] = {"z": (0, 1, 2), "y": (1, 0, 2), "x": (2, 0, 1)}
"""Of (Z, Y, X): axes of the slices, the rows and the columns."""
_LEFT, _POSTERIOR, _SUPERIOR = range(3)
_ANATOMICAL: dict[str, tuple[tuple[int, int], ...]] = {
    "axial": ((_SUPERIOR, 1), (_POSTERIOR, 1), (_LEFT, 1)),
    "coronal": ((_POSTERIOR, 1), (_SUPERIOR, -1), (_LEFT, 1)),
    "sagittal": ((_LEFT, 1), (_SUPERIOR, -1), (_POSTERIOR, 1)),
}
"""Directions in which slices, rows and columns are counted, as radiologists look at them: from the
feet or from the front, the patient's right on the left of the picture, or the nose to the left."""


@dataclass(frozen=True, slots=True)
class Orientation:
    """How the stored axes (Z, Y, X) of a volume lie in the patient."""

    directions: tuple[tuple[int, int], ...]
    """Of each: 0, 1, 2 for left, posterior, superior, and 1, or -1 where it runs the other way."""
    spacing: tuple[float, float, float]
    """Between voxels along each, in mm."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What becomes slices, rows and columns of pictures: stored axes, and whether reversed."""

    axes: tuple[int, int, int]
    reverse: tuple[bool, bool, bool]
    stretch: tuple[float, float] = (1.0, 1.0)
    """By which rows and columns are to be stretched to make pixels square."""

    def place(self, index: int, sides: Sequence[int]) -> int:
        """Of a slice in the stored order of a volume of (Z, Y, X) = `sides`."""
        return sides[self.axes[0]] - 1 - index if self.reverse[0] else index


class Volume(Protocol):
    """Grey volumes of one file or of a series, in any state of being read."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(T, Z, Y, X)."""
        ...

    def orientation(self) -> Orientation:
        """How it lies in the patient. `RecordError` where the file does not tell."""
        ...

    def slices(self, frame: int, start: int, stop: int) -> NDArray[np.float32]:
        """Values of the slices `start` to `stop` along Z of a frame: (z, Y, X)."""
        ...

    def shading(self, frame: int, place: int) -> Shading:
        """How the file says that a slice along Z is shown."""
        ...


def orientation_of(affine: NDArray[Any]) -> Orientation:
    """The orientation that an affine tells, as NIfTI has it: from (x, y, z) to (R→L, P→A, I→S).

    Oblique volumes are taken along the axes that they are nearest to.

    Raises:
        RecordError: two axes of it run the same way.
    """
    found = io_orientation(affine)
    if np.isnan(found).any():
        raise RecordError("its affine is singular, so no direction is known; data.axis=z, y or x")
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    # NIfTI counts to the right and to the front, DICOM to the left and to the back.
    signs = [sign * (1 if axis == _SUPERIOR else -1) for axis, sign in found]
    directions = [(int(axis), int(sign)) for (axis, _), sign in zip(found, signs, strict=True)]
    z, y, x = spacing[::-1].tolist()
    return Orientation(tuple(directions[::-1]), (z, y, x))


def turn_to(axis: Axis, volume: Volume) -> Turn:
    """How a volume is turned for slices across `axis`.

    Raises:
        RecordError: the file does not tell where the anatomical axes are.
    """
    if axis in _STORED:
        return Turn(_STORED[axis], (False, False, False))
    orientation = volume.orientation()
    stored = [direction for direction, _ in orientation.directions]
    wanted = _ANATOMICAL[axis]
    slices, rows, columns = (stored.index(direction) for direction, _ in wanted)
    reverse = tuple(
        orientation.directions[stored.index(direction)][1] != sign for direction, sign in wanted
    )
    height, width = orientation.spacing[rows], orientation.spacing[columns]
    finest = min(height, width) or 1.0
    return Turn((slices, rows, columns), reverse, (height / finest, width / finest))  # type: ignore[arg-type]


def cut(volume: Volume, turn: Turn, *, index: int, frames: Sequence[int]) -> NDArray[np.float32]:
    """The pictures of a slice, a channel for each frame: (C, H, W).

    Args:
        volume: to be cut.
        turn: from `turn_to`.
        index: of the slice, counted in the direction of the turn; see `slice_index`.
        frames: indices of frames, negative ones from the end.

    Raises:
        RecordError: there is no such frame.
    """
    place = turn.place(index, volume.shape[1:])
    return np.stack([_plane(volume, turn, place, frame) for frame in known_frames(frames, volume)])


def known_frames(frames: Sequence[int], volume: Volume) -> list[int]:
    """Indices of frames from 0; `RecordError` where there is no such frame."""
    n_frames = volume.shape[0]
    for frame in frames:
        if not -n_frames <= frame < n_frames:
            raise RecordError(f"no frame {frame}: it has {n_frames}, counted from 0")
    return [frame % n_frames for frame in frames]


def _plane(volume: Volume, turn: Turn, place: int, frame: int) -> NDArray[np.float32]:
    axis, *rest = turn.axes
    if axis == 0:
        plane = volume.slices(frame, place, place + 1)[0]
    else:
        plane = volume.slices(frame, 0, volume.shape[1]).take(place, axis)
    turned = plane if rest[0] < rest[1] else plane.T
    flips = tuple(slice(None, None, -1 if reverse else 1) for reverse in turn.reverse[1:])
    flipped: NDArray[np.float32] = turned[flips]
    return flipped


def slice_index(wanted: int | float | None, count: int) -> int:
    """Index of a slice of `count`: null is the middle one, a float a share of the way.

    Raises:
        RecordError: there is no such slice.
    """
    if wanted is None:
        return count // 2
    if isinstance(wanted, float):
        return min(int(wanted * count), count - 1)
    if not -count <= wanted < count:
        raise RecordError(f"no slice {wanted}: it has {count}, counted from 0")
    return wanted % count
