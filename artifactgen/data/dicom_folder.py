"""Folders of DICOM files: `<root>/<split>/<class>/…`, in series or each by itself."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from artifactgen.data.base import Catalog, is_of_the_file
from artifactgen.data.dicom import (
    HEAD_BYTES,
    DicomHeader,
    is_dicom,
    read_dicom_header,
    require_element,
)
from artifactgen.data.dicom_series import arrange
from artifactgen.data.folders import (
    PATH,
    Found,
    Split,
    label_folders,
    list_splits,
    split_folders,
    with_ids,
)
from artifactgen.data.texts import TEXT
from artifactgen.data.volume_listing import FRAMES, catalog_of, listed_files, read_listed
from artifactgen.data.volumes import Volumes
from artifactgen.data.walking import files_below
from artifactgen.errors import RecordError
from artifactgen.types import Failure, Sample

log = logging.getLogger(__name__)

FILES = "files"
"""Column of listings: names of the files of a series, in its order, one NUL between two."""
_READERS = 16
_ENDINGS = (".dcm", ".dicom", ".dic", ".ima")
"""Others are parts of names, which often are numbers with dots."""
_INDEX = "dicomdir"
"""Name of the table of contents of a medium, in lower case; it is DICOM and holds no picture."""


@dataclass(frozen=True, slots=True)
class _Series:
    """Files of a folder that are one record."""

    files: tuple[str, ...]
    """Paths below the split, in order."""
    n_frames: int
    wanted: str | None
    """Value of `id_tag`."""
    is_alone: bool
    """Whether its folder holds no other that can be read."""


@dataclass(frozen=True, kw_only=True)
class DicomFolder(Volumes):
    """Records are series of DICOM files below `root`, or files, or slices of them.

    A series are the files of one folder with one SeriesInstanceUID; a file of many frames is one
    by itself. Its slices are in order along their normal, see `arrange`. Files that are not DICOM,
    or hold no picture, are left out. Splits and classes are folders as in `NiftiFolder`.

    Ids are paths below the split: of the folder where it holds a single series and lies below the
    folders of split and class; else of the series' first file, by name. Nothing that the files say
    of the patient is in an id, unless `id_tag` names it.
    """

    root: str
    """A folder."""
    record: Literal["series", "file"] = "series"
    id_tag: str | None = None
    """Keyword of an element whose value ids begin with, such as `PatientID`, before `/` and the
    rest; None = nothing out of the files."""
    class_folders: bool | None = None
    """Whether the folders in a split are classes; None = unless each holds only one record."""
    classes: tuple[str, ...] | None = None
    """Names of the folders of classes in the order of their labels; None = sorted."""

    def scan(self) -> Catalog:
        """Read the header of every file, and of a few their content.

        Raises:
            DataError: no folder, no picture in it, or classes that are not as given.
            ConfigError: options that no volume could fulfil; pydicom is not installed.
        """
        self.check_options()
        require_element(self.id_tag)
        splits = split_folders(Path(self.root))
        series = {split.name: list(self._series(split)) for split in splits}
        paths = {name: [(s.files[0], s.files[0]) for s in found] for name, found in series.items()}
        classes = label_folders(
            splits, self.classes, lambda split: paths[split.name], asked=self.class_folders
        )
        listings = list_splits(
            splits,
            classes,
            lambda split: self._found(series[split.name], has_classes=bool(classes)),
            what="DICOM picture",
            columns={FILES: TEXT, FRAMES: pa.int32()},
        )
        return catalog_of(self, listings, classes, self._paths)

    def read(
        self, catalog: Catalog, split: str, start: int, stop: int
    ) -> Iterator[Sample | Failure]:
        """Decode rows `start` to `stop` of a split, each a `Sample` or a `Failure`."""
        place = Path(self.root)
        return read_listed(self, catalog, split, start, stop, paths=self._paths, place=place)

    def files(self, catalog: Catalog, split: str, start: int, stop: int) -> Iterator[str]:
        """Paths of the files that rows `start` to `stop` of a split lie in."""
        return listed_files(catalog, split, start, stop, paths=self._paths)

    def _paths(self, row: dict[str, Any]) -> list[Path]:
        folder = Path(self.root, row[PATH]).parent
        return [folder / name for name in row[FILES].split("\0")]

    def _series(self, split: Split) -> Iterator[_Series]:
        paths = (p for p in files_below(split.folder, endings=("",)) if not _is_index(p))
        left_out = 0
        with ThreadPoolExecutor(_READERS, thread_name_prefix="dicom") as pool:
            for _, group in groupby(paths, key=lambda path: path.rpartition("/")[0]):
                names = list(group)
                headers = pool.map(lambda name: self._header(split.folder / name), names)
                found = [(n, h) for n, h in zip(names, headers, strict=True) if h is not None]
                left_out += len(names) - len(found)
                yield from self._grouped(found, split.folder)
        if left_out:
            what = "1 file" if left_out == 1 else f"{left_out:,} files"
            are = "is" if left_out == 1 else "are"
            log.info("Data: %s below %s %s no DICOM picture", what, split.folder, are)

    def _header(self, path: Path) -> DicomHeader | RecordError | None:
        try:
            with path.open("rb") as file:
                if not is_dicom(file.read(HEAD_BYTES)):
                    return None
            return read_dicom_header(path, wanted=self.id_tag)
        except RecordError as error:
            return error
        except OSError as error:
            if is_of_the_file(error):
                return RecordError(str(error))
            raise

    def _grouped(
        self, found: Sequence[tuple[str, DicomHeader | RecordError]], folder: Path
    ) -> Iterator[_Series]:
        """The records of a folder, in the order of their first names."""
        groups: dict[str, list[tuple[str, DicomHeader]]] = defaultdict(list)
        for name, header in found:
            if not isinstance(header, DicomHeader):
                groups[name] = []  # it is a record that fails where it is read
            elif self.record == "file" or len(header.frames) > 1 or not header.series:
                groups[name] = [(name, header)]
            else:
                groups[f"\0{header.series}"].append((name, header))
        readable = sum(map(bool, groups.values()))
        for key, members in groups.items():
            is_alone = bool(members) and readable == 1
            yield _ordered(key, members, folder, is_alone=is_alone)

    def _found(self, series: Iterable[_Series], *, has_classes: bool) -> Iterator[Found]:
        """Records as `list_splits` takes them, in the order of their paths."""
        rows = list(series)
        names = [min(one.files) for one in rows]
        stems = {path: stem for stem, path in with_ids(names, endings=_ENDINGS)}
        for one, name in zip(rows, names, strict=True):
            folder = name.rpartition("/")[0]
            is_folder = (
                self.record == "series"
                and one.is_alone
                and folder.count("/") >= has_classes
                and folder
            )
            rest = folder if is_folder else stems[name]
            record_id = f"{one.wanted}/{rest}" if one.wanted else rest
            files = "\0".join(path.rpartition("/")[2] for path in one.files)
            yield record_id, one.files[0], files, one.n_frames


def _is_index(path: str) -> bool:
    return path.rpartition("/")[2].lower() == _INDEX


def _ordered(
    key: str, members: Sequence[tuple[str, DicomHeader]], folder: Path, *, is_alone: bool
) -> _Series:
    if not members:
        return _Series((key,), 1, None, is_alone)
    wanted = members[0][1].wanted
    if len(members) == 1:
        return _Series((members[0][0],), 1, wanted, is_alone)
    names = {folder / name: name for name, _ in members}
    grid = arrange(frame for _, header in members for frame in header.frames)
    files = tuple(names[frame.path] for frames in grid for frame in frames)
    return _Series(files, len(grid), wanted, is_alone)
