"""The slices of a DICOM series, or of a file of many frames, as a volume."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from artifactgen.data.dicom import DicomFrame, DicomHeader, read_dicom_header, read_shading
from artifactgen.data.dicom_pixels import read_colours, read_values
from artifactgen.data.image import require_pixels
from artifactgen.data.intensity import Shading
from artifactgen.data.volume import Orientation, orientation_of
from artifactgen.errors import RecordError

_SAME_PLACE_MM = 1e-3
Grid = tuple[tuple[DicomFrame, ...], ...]
"""Frames by time, then by place."""


@dataclass(frozen=True, slots=True)
class DicomVolume:
    """A series; see `artifactgen.data.volume.Volume`. A slice is read when it is asked for."""

    header: DicomHeader
    """Of its first file."""
    grid: Grid

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.grid), len(self.grid[0]), *self.header.size

    def orientation(self) -> Orientation:
        first, last = self.grid[0][0], self.grid[0][-1]
        if first.orientation is None or first.position is None or last.position is None:
            raise RecordError(
                f"{first.path}: it does not tell where it lies in the patient "
                "(ImageOrientationPatient, ImagePositionPatient); data.axis=z, y or x"
            )
        columns, rows = np.array(first.orientation[:3]), np.array(first.orientation[3:])
        step = np.cross(columns, rows)
        if len(self.grid[0]) > 1:
            step = (np.array(last.position) - first.position) / (len(self.grid[0]) - 1)
        height, width = self.header.spacing
        affine = np.eye(4)
        affine[:3, :3] = np.stack([columns * width, rows * height, step], axis=1)
        affine[:2] *= -1  # to NIfTI's directions
        return orientation_of(affine)

    def slices(self, frame: int, start: int, stop: int) -> NDArray[np.float32]:
        planes = [read_values(place) for place in self.grid[frame][start:stop]]
        for plane, place in zip(planes, self.grid[frame][start:stop], strict=True):
            if plane.shape != self.header.size:
                raise RecordError(
                    f"{place.path}: {plane.shape} pixels, and {self.header.size} in the first "
                    "file of the series"
                )
        return np.stack(planes)

    def shading(self, frame: int, place: int) -> Shading:
        return read_shading(self.grid[frame][place])

    def colours(self, frame: int, place: int) -> NDArray[np.uint8]:
        """A slice in colours: (H, W, 3)."""
        return read_colours(self.grid[frame][place])


def open_dicom(paths: Sequence[Path], *, n_frames: int | None, max_pixels: int) -> DicomVolume:
    """A series as a volume; no pixel is read.

    Args:
        paths: its files, those of a frame together, each in order; or one file.
        n_frames: number of frames; None = as the one file says.
        max_pixels: see `data.max_pixels`.

    Raises:
        RecordError: the first file is broken, holds no picture, or one that is too large.
    """
    header = read_dicom_header(paths[0])
    if header is None:
        raise RecordError(f"{paths[0]}: a DICOM file that holds no picture")
    require_pixels(header.size, max_pixels)
    if len(paths) == 1:
        return DicomVolume(header, arrange(header.frames, is_cine=header.is_cine))
    assert n_frames is not None
    n_slices = len(paths) // n_frames
    grid = tuple(_located(paths[i : i + n_slices]) for i in range(0, len(paths), n_slices))
    return DicomVolume(header, grid)


def arrange(frames: Iterable[DicomFrame], *, is_cine: bool = False) -> Grid:
    """Put frames in order: by time, then by place along the normal of the slices.

    Where several lie at one place, as often at each, they follow one another in time, by their
    numbers. Where places are not told, or slices do not lie in parallel, their numbers tell.

    Args:
        frames: of a series or of a file.
        is_cine: whether all are of one place.
    """
    by_number = sorted(frames, key=lambda f: (f.number, f.index, f.path.name))
    if is_cine:
        return tuple((frame,) for frame in by_number)
    places: dict[float, list[DicomFrame]] = defaultdict(list)
    for frame in by_number:
        along = _along(frame, by_number[0])
        if along is None:
            return (tuple(by_number),)
        places[along].append(frame)
    times = {len(found) for found in places.values()}
    if len(times) > 1:
        return (tuple(by_number),)
    ordered = [places[along] for along in sorted(places)]
    return tuple(tuple(found[t] for found in ordered) for t in range(times.pop()))


def _along(frame: DicomFrame, first: DicomFrame) -> float | None:
    """Where a slice lies along the normal of the first, in mm; None where that means nothing."""
    if frame.position is None or frame.orientation is None or first.orientation is None:
        return None
    if not np.allclose(frame.orientation, first.orientation, atol=1e-3):
        return None
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    return round(float(normal @ np.array(frame.position)) / _SAME_PLACE_MM) * _SAME_PLACE_MM


def _located(paths: Sequence[Path]) -> tuple[DicomFrame, ...]:
    """Files of one frame each; where the last lies is all that is needed of the others."""
    ends = {path: _only_frame(path) for path in {paths[0], paths[-1]}}
    return tuple(ends.get(path) or DicomFrame(path, 0, 0, None, None) for path in paths)


def _only_frame(path: Path) -> DicomFrame:
    try:
        header = read_dicom_header(path)
    except RecordError:
        header = None
    return header.frames[0] if header else DicomFrame(path, 0, 0, None, None)
