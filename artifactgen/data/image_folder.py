"""Folders of pictures as torchvision's ImageFolder has them: `<root>/<split>/<class>/name.png`."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from artifactgen.data.base import Catalog, decode_each
from artifactgen.data.content import MOST_SAMPLED, files_digest
from artifactgen.data.listing import (
    ID,
    TEXT,
    Listing,
    ListingWriter,
    digest_of,
    evenly,
    repeated_ids,
)
from artifactgen.data.pictures import ENDINGS, Pictures
from artifactgen.data.walking import files_below, folders_in
from artifactgen.errors import DataError, did_you_mean
from artifactgen.types import UNKNOWN_LABEL, Failure, Sample

_SPLITS = {
    **{"train": "train", "training": "train"},
    **{"val": "val", "valid": "val", "validation": "val"},
    **{"test": "test", "testing": "test"},
}
"""Names of folders that are splits, and what they are called here."""
PATH, LABEL = "path", "label"


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
        folders = _split_folders(Path(self.root))
        classes = _classes(folders, self.classes)
        listings = _list(folders, classes)
        some = [Path(self.root, row[PATH]) for row in evenly(listings, MOST_SAMPLED)]
        channels, dtype = self.kind_of_first(some)
        return Catalog(
            splits=listings,
            classes=classes,
            channels=channels,
            identity=hashlib.sha256(f"{classes}{digest_of(listings)}".encode()).hexdigest(),
            content=files_digest(some),
            dtype=dtype,
        )

    def read(
        self, catalog: Catalog, split: str, start: int, stop: int
    ) -> Iterator[Sample | Failure]:
        """Decode rows `start` to `stop` of a split, each a `Sample` or a `Failure`."""
        listing = catalog.splits[split]
        assert isinstance(listing, Listing)
        refs = [(row[ID], row) for row in listing.read(start, stop)]
        decode = partial(self._decode_row, catalog)
        return decode_each(refs, decode, split=split, start=start, place=Path(self.root))

    def files(self, catalog: Catalog, split: str, start: int, stop: int) -> Iterator[str]:
        """Paths of the pictures in rows `start` to `stop` of a split."""
        listing = catalog.splits[split]
        assert isinstance(listing, Listing)
        return (f"{self.root}/{row[PATH]}" for row in listing.read(start, stop))

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


@dataclass(frozen=True, slots=True)
class _Split:
    """A folder that is a split."""

    name: str
    folder: Path
    prefix: str
    """Of paths relative to the root: `train/`, or nothing."""


def _split_folders(root: Path) -> list[_Split]:
    if not root.is_dir():
        raise DataError(f"data.root={root}: no such folder.")
    names = folders_in(root)
    if not any(name.lower() in _SPLITS for name in names):
        return [_Split("test", root, "")]
    splits = [_Split(_SPLITS.get(n.lower(), n), root / n, f"{n}/") for n in names]
    counts = Counter(split.name for split in splits)
    if twice := [name for name in counts if counts[name] > 1]:
        both = " and ".join(split.prefix for split in splits if split.name == twice[0])
        raise DataError(f"data.root={root}: {both} are both the split {twice[0]}. Remove one.")
    return sorted(splits, key=lambda split: split.name)


def _classes(splits: Sequence[_Split], given: tuple[str, ...] | None) -> tuple[str, ...]:
    found = sorted({name for split in splits for name in folders_in(split.folder)})
    unknown = [name for name in found if given is not None and name not in given]
    if unknown:
        raise DataError(
            f"{unknown[0]}: a folder of a class that data.classes does not name. "
            f"{did_you_mean(unknown[0], given or ())}"
        )
    return tuple(found) if given is None else given


def _list(splits: Sequence[_Split], classes: Sequence[str]) -> dict[str, Listing]:
    """List every split; ids get the split's name where they would occur twice without it."""
    for with_split in (False, True):
        writers = {split.name: _write(split, classes, with_split=with_split) for split in splits}
        listings = {name: writer.finish() for name, writer in writers.items() if len(writer)}
        if not listings:
            folders = ", ".join(str(split.folder) for split in splits)
            raise DataError(f"There is no picture ({', '.join(ENDINGS)}) below {folders}.")
        hashes = [writer.hashes for writer in writers.values()]
        repeated = repeated_ids(listings.values(), hashes)
        if not repeated:
            return listings
    raise DataError(f"Several pictures would have one id: {', '.join(repeated)}. Rename them.")


def _write(split: _Split, classes: Sequence[str], *, with_split: bool) -> ListingWriter:
    writer = ListingWriter({PATH: TEXT, LABEL: pa.int32()})
    labels = {name: index for index, name in enumerate(classes)}
    before = f"{split.name}/" if with_split else ""
    for path, name in _with_ids(files_below(split.folder, endings=ENDINGS)):
        first, _, below = path.partition("/")
        label = labels[first] if below else UNKNOWN_LABEL
        writer.add(before + name, split.prefix + path, label)
    return writer


def _with_ids(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Each path with its id: without the ending, unless a neighbour differs by that alone."""
    for _, group in groupby(paths, key=lambda path: path.rpartition("/")[0]):
        found = list(group)
        stems = Counter(path.rpartition(".")[0] for path in found)
        for path in found:
            stem = path.rpartition(".")[0]
            yield path, path if stems[stem] > 1 else stem
