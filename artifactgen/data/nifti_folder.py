"""Folders of NIfTI volumes: `<root>/<split>/<class>/…/name.nii.gz`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from artifactgen.data.base import Catalog
from artifactgen.data.folders import (
    PATH,
    Found,
    Split,
    label_folders,
    list_splits,
    split_folders,
    with_ids,
)
from artifactgen.data.volume_listing import catalog_of, listed_files, read_listed
from artifactgen.data.volumes import Volumes
from artifactgen.data.walking import files_below
from artifactgen.types import Failure, Sample

_ENDINGS = (".nii.gz", ".nii")


@dataclass(frozen=True, kw_only=True)
class NiftiFolder(Volumes):
    """Records are NIfTI-1 files of 3 or 4 axes below `root`, or slices of them.

    Splits are folders as in `ImageFolder`; so are classes, and ids, without `.nii.gz`. Folders
    that hold one record each are taken for patients, unless `class_folders` says otherwise.
    """

    root: str
    """A folder."""
    pattern: str = "*.nii*"
    """Of names of files; of paths below the split, where it holds a `/`."""
    class_folders: bool | None = None
    """Whether the folders in a split are classes; None = unless each holds only one record."""
    classes: tuple[str, ...] | None = None
    """Names of the folders of classes in the order of their labels; None = sorted."""

    def scan(self) -> Catalog:
        """List all files; a few of them are read, or the headers of all for `expand`.

        Raises:
            DataError: no folder, no volume in it, or classes that are not as given.
            ConfigError: options that no volume could fulfil.
        """
        self.check_options()
        splits = split_folders(Path(self.root))
        classes = label_folders(splits, self.classes, self._find, asked=self.class_folders)
        what = f"volume (data.pattern={self.pattern})"
        listings = list_splits(splits, classes, self._find, what=what)
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

    def _paths(self, row: dict[str, Any]) -> tuple[Path, ...]:
        return (Path(self.root, row[PATH]),)

    def _find(self, split: Split) -> Iterable[Found]:
        found = files_below(split.folder, endings=("",))
        return with_ids((path for path in found if self._matches(path)), endings=_ENDINGS)

    def _matches(self, path: str) -> bool:
        name = path if "/" in self.pattern else path.rpartition("/")[2]
        return fnmatchcase(name, self.pattern)
