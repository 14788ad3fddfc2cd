"""What the sources have in common whose files may be anything: pictures, arrays, volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from artifactgen.data.base import Catalog
from artifactgen.data.image import require_pixels
from artifactgen.data.npy import kind_of_npy, read_npy_header, read_npy_picture
from artifactgen.data.pictures import Pictures
from artifactgen.data.volume_files import kind_of_file
from artifactgen.data.volumes import Volumes
from artifactgen.types import UNKNOWN_LABEL, Sample


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
        self,
        paths: Sequence[Path],
        record_id: str,
        row: int,
        *,
        catalog: Catalog,
        label: int = UNKNOWN_LABEL,
        index: int | None = None,
        n_frames: int | None = None,
    ) -> Sample:
        """A file as a sample; see `Volumes.sample_of`."""
        kind = kind_of_file(paths[0])
        if kind == "picture":
            data = paths[0].read_bytes()
            return self.sample(data, record_id, row, catalog=catalog, label=label)
        if kind == "npy" and (header := read_npy_header(paths[0])).is_picture:
            require_pixels(header.shape[:2], self.max_pixels)
            stored = read_npy_picture(paths[0], header, mode=self.mode, window=self.window)
            return self.framed(stored, record_id, row, catalog=catalog, label=label)
        return super().sample_of(
            paths, record_id, row, catalog=catalog, label=label, index=index, n_frames=n_frames
        )

    def count_slices(self, paths: Sequence[Path], *, n_frames: int | None = None) -> int | None:
        """How many slices a volume has; None where the file is a picture."""
        kind = kind_of_file(paths[0])
        if kind == "picture" or (kind == "npy" and read_npy_header(paths[0]).is_picture):
            return None
        return super().count_slices(paths, n_frames=n_frames)
