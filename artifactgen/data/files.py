"""What the sources have in common whose files may be anything: pictures, arrays, volumes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from artifactgen.data.base import Catalog
from artifactgen.data.image import require_pixels
from artifactgen.data.npy import NpyHeader, kind_of_npy, read_npy_header, read_npy_picture
from artifactgen.data.pictures import Pictures
from artifactgen.data.volume_files import kind_of_file
from artifactgen.data.volumes import Found, Volumes
from artifactgen.types import Sample


@dataclass(frozen=True, kw_only=True)
class Files(Volumes, Pictures):
    """Options of sources of files of any kind; what a file is, is told by its content.

    An array (`.npy`) of shape (H, W), or (H, W, C) of up to four channels, is a picture; others of
    3 or 4 axes are volumes, (Z, Y, X) or (T, Z, Y, X). See `read_npy_picture`, `to_unit`.
    """

    def kind_of(self, path: Path) -> tuple[int, str]:
        """Channels and type of a sample; see `Framed.kind_of`."""
        kind = kind_of_file(path)
        if kind == "picture":
            return Pictures.kind_of(self, path)
        if kind == "npy" and (header := read_npy_header(path)).is_picture:
            return kind_of_npy(header, mode=self.mode, window=self.window)
        return Volumes.kind_of(self, path)

    def sample_of(
        self, found: Found, record_id: str, row: int, *, catalog: Catalog, label: int
    ) -> Sample:
        """A file as a sample; see `Volumes.sample_of`."""
        picture = self._picture_in(found.paths[0])
        if picture is None:
            return super().sample_of(found, record_id, row, catalog=catalog, label=label)
        return self.framed(picture(), record_id, row, catalog=catalog, label=label, again=picture)

    def count_slices(self, found: Found) -> int | None:
        """How many slices a volume has; None where the file is a picture."""
        return super().count_slices(found) if self._picture_in(found.paths[0]) is None else None

    def _picture_in(self, path: Path) -> Callable[[], NDArray[Any]] | None:
        """What reads the picture in a file; None where it is a volume."""
        kind = kind_of_file(path)
        if kind == "picture":
            return lambda: self.decode(path.read_bytes())
        if kind == "npy" and (header := read_npy_header(path)).is_picture:
            return partial(self._array, path, header)
        return None

    def _array(self, path: Path, header: NpyHeader) -> NDArray[Any]:
        require_pixels(header.shape[:2], self.max_pixels)
        return read_npy_picture(path, header, mode=self.mode, window=self.window)
