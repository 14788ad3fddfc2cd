"""Folders of pictures as torchvision's ImageFolder has them: `<root>/<split>/<class>/name.png`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from artifactgen.data.base import Catalog, decode_each
from artifactgen.data.content import MOST_SAMPLED, files_digest
from artifactgen.data.folders import (
    PATH,
    Found,
    Split,
    class_folders,
    list_splits,
    split_folders,
    with_ids,
)
from artifactgen.data.listing import LABEL, digest_of, listed_rows
from artifactgen.data.pictures import ENDINGS, Pictures
from artifactgen.data.sampling import evenly
from artifactgen.data.walking import files_below
from artifactgen.types import Failure, Sample


@dataclass(frozen=True, kw_only=True)
class ImageFolder(Pictures):
    """Records are picture files below `root`.

    Where `root` has a folder `train`, `val` (or `valid`, `validation`) or `test`, each of its
    folders is a split; else all of it is `test`. The folders in a split are classes, numbered by
    their sorted names over all splits; pictures that lie right in a split have no label.

    Ids are paths below the split without the ending of the name. Two in a folder that differ by
    that alone keep it; where two of several splits would be the same, all begin with the split.
    """

    root: str
    """A folder."""
    classes: tuple[str, ...] | None = None
    """Names of the folders of classes in the order of their labels; None = sorted."""

    def scan(self) -> Catalog:
        """List all files; a few of them are read.

        Raises:
            DataError: no folder, no picture in it, or classes that are not as given.
        """
        folders = split_folders(Path(self.root))
        classes = class_folders(folders, self.classes)
        what = f"picture ({', '.join(ENDINGS)})"
        listings = list_splits(folders, classes, _find, what=what)
        some = [Path(self.root, row[PATH]) for row in evenly(listings, MOST_SAMPLED)]
        channels, dtype = self.kind_of_first(some)
        return Catalog(
            splits=listings,
            classes=classes,
            channels=channels,
            identity=digest_of(listings, classes),
            content=files_digest(some),
            dtype=dtype,
        )

    def read(
        self, catalog: Catalog, split: str, start: int, stop: int
    ) -> Iterator[Sample | Failure]:
        """Decode rows `start` to `stop` of a split, each a `Sample` or a `Failure`."""
        rows = listed_rows(catalog, split, start, stop)
        decode = partial(self._decode_row, catalog)
        return decode_each(rows, decode, split=split, start=start, place=Path(self.root))

    def files(self, catalog: Catalog, split: str, start: int, stop: int) -> Iterator[str]:
        """Paths of the pictures in rows `start` to `stop` of a split."""
        rows = listed_rows(catalog, split, start, stop)
        return (f"{self.root}/{row[PATH]}" for _, row in rows)

    def _decode_row(
        self, catalog: Catalog, row: int, record_id: str, found: dict[str, Any]
    ) -> Sample:
        path = Path(self.root, found[PATH])
        return self.sample(
            path.read_bytes(),
            record_id,
            row,
            catalog=catalog,
            label=found[LABEL],
            again=path.read_bytes,
        )


def _find(split: Split) -> Iterable[Found]:
    return with_ids(files_below(split.folder, endings=ENDINGS))
