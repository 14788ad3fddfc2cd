"""What the sources have in common whose files may be volumes: NIfTI, DICOM, `.npy`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from artifactgen.data.base import Catalog
from artifactgen.data.dicom import read_dicom_header
from artifactgen.data.dicom_series import DicomVolume
from artifactgen.data.image import require_pixels, resize
from artifactgen.data.intensity import Window, to_unit
from artifactgen.data.pictures import Framed
from artifactgen.data.volume import Axis, cut, known_frames, slice_index, turn_to
from artifactgen.data.volume_files import AnyVolume, kind_of_volume, open_volume
from artifactgen.errors import ConfigError, RecordError
from artifactgen.types import Sample


@dataclass(frozen=True, slots=True)
class Found:
    """Where a record lies."""

    paths: tuple[Path, ...]
    """Its file, or those of a DICOM series in order."""
    index: int | None = None
    """Of the slice; None = as the source's options say."""
    n_frames: int | None = None
    """Of a DICOM series, see `open_dicom`."""


@dataclass(frozen=True, kw_only=True)
class Volumes(Framed):
    """Options of sources whose files may be volumes.

    The picture of a volume is one slice of it. It is grey: one channel, which a model of more sees
    in each; or several, one for each of `frames`. Its values become float32 in [0, 1], see
    `artifactgen.data.intensity`. DICOM in colours is RGB of 8 bits.
    """

    axis: Axis = "z"
    """Across which axis slices are cut: `z`, `y`, `x` as stored, rows and columns unturned; or
    `axial`, `coronal`, `sagittal`, turned as a radiologist looks at them, with square pixels."""
    slice: int | float | None = None
    """Index of the slice, from 0, negative from the end; a float is a share of the way; None = the
    middle one, count // 2."""
    frames: tuple[int, ...] | None = None
    """Indices of frames, from 0, negative from the end; None = the first."""
    window: Window | None = None
    """(low, high): values of black and white; None = as a DICOM file says, else each picture, and
    each frame, from its least to its largest value."""
    expand: Literal["slices"] | None = None
    """`slices`: every slice is a record, its id that of the volume, `_` and the index of the slice
    in at least three digits. So what precedes the last `_` is the volume's id."""

    @property
    def frame_names(self) -> tuple[str, ...]:
        """Names of the channels, where each is a picture."""
        frames = self.frames or ()
        return tuple(f"frame {frame}" for frame in frames) if len(frames) > 1 else ()

    def check_options(self) -> None:
        """`ConfigError` for options that no volume could fulfil."""
        if isinstance(self.slice, float) and not 0 <= self.slice <= 1:
            raise ConfigError(
                f"data.slice={self.slice}: a share of the way lies between 0 and 1; an index is a "
                "whole number."
            )
        if self.slice is not None and self.expand is not None:
            raise ConfigError(
                f"data.slice={self.slice} and data.expand={self.expand}: one slice of each volume "
                "is a record, or every slice is. Leave out one of them."
            )
        if self.frames is not None and not self.frames:
            raise ConfigError("data.frames=[]: name at least one, or null for the first.")
        if self.window is not None and not self.window[0] < self.window[1]:
            raise ConfigError(
                f"data.window={list(self.window)}: [low,high], the first below the second."
            )

    def kind_of(self, path: Path) -> tuple[int, str]:
        """Channels and type of a sample, told by the head of its file; see `Framed.kind_of`."""
        grey = len(self.frames or (0,)), "float32"
        if kind_of_volume(path) != "dicom":
            return grey
        found = read_dicom_header(path)
        if found is None:
            raise RecordError("a DICOM file that holds no picture")
        return (3, "uint8") if found.is_colour else grey

    def sample_of(
        self, found: Found, record_id: str, row: int, *, catalog: Catalog, label: int
    ) -> Sample:
        """What was found as a sample.

        Raises:
            RecordError: it is broken, or of another kind than those of the data set.
        """
        again = partial(self.stored_of, found)
        sample = self.framed(again(), record_id, row, catalog=catalog, label=label, again=again)
        if sample.image_CHW.dtype == np.uint8:
            return sample
        # Filters overshoot, and a viewer takes what leaves [0, 1] for another unit.
        return replace(sample, image_CHW=sample.image_CHW.clip(0, 1))

    def stored_of(self, found: Found) -> NDArray[Any]:
        """The picture of a volume before it is resized: (H, W, C).

        Raises:
            RecordError: it is broken, or lacks the slice or a frame.
        """
        volume = self._open(found, keep=self.expand is not None)
        return self._picture(volume, self.slice if found.index is None else found.index)

    def count_slices(self, found: Found) -> int | None:
        """How many slices a volume has across `axis`; None where it is no volume.

        Raises:
            RecordError: it is broken.
        """
        volume = self._open(found, header_only=True)
        return volume.shape[1 + turn_to(self.axis, volume).axes[0]]

    def _open(self, found: Found, *, keep: bool = False, header_only: bool = False) -> AnyVolume:
        return open_volume(
            kind_of_volume(found.paths[0]),
            found.paths,
            n_frames=found.n_frames,
            max_pixels=self.max_pixels,
            keep=keep,
            header_only=header_only,
        )

    def _picture(self, volume: AnyVolume, wanted: float | None) -> NDArray[Any]:
        """A slice as a picture (H, W, C)."""
        if isinstance(volume, DicomVolume) and volume.header.is_colour:
            return self._colours(volume, wanted)
        turn = turn_to(self.axis, volume)
        sides = volume.shape[1:]
        height, width = (
            round(sides[axis] * stretch)
            for axis, stretch in zip(turn.axes[1:], turn.stretch, strict=True)
        )
        require_pixels((height, width), self.max_pixels)
        index = slice_index(wanted, sides[turn.axes[0]])
        frames = self.frames or (0,)
        values_CHW = cut(volume, turn, index=index, frames=frames)
        place = turn.place(index, sides) if turn.axes[0] == 0 else sides[0] // 2
        unit_CHW = to_unit(values_CHW, self.window, volume.shading(frames[0], place))
        return np.moveaxis(resize(unit_CHW, (height, width)), 0, -1)

    def _colours(self, volume: DicomVolume, wanted: float | None) -> NDArray[np.uint8]:
        frames = self.frames or (0,)
        if self.axis != "z" or len(frames) > 1:
            raise RecordError("in colours; data.axis and several data.frames are for grey volumes")
        (frame,) = known_frames(frames, volume)
        return volume.colours(frame, slice_index(wanted, volume.shape[1]))
