"""The source itself: options, and the reading of ranges."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from artifactgen.data.base import Catalog, decode_each
from artifactgen.data.content import files_digest
from artifactgen.data.listing import ID, LABEL, Listing, digest_of, listed_rows
from artifactgen.data.pictures import Pictures, first_kind
from artifactgen.data.sampling import evenly
from artifactgen.data.splits import group_by_split
from artifactgen.data.walking import files_matching, root_of
from artifactgen.data.webdataset.braces import expand_braces
from artifactgen.data.webdataset.scan import (
    ABSENT,
    OFFSET,
    SHARD,
    SIZE,
    Keys,
    Shards,
    scan_shards,
)
from artifactgen.errors import ConfigError, RecordError
from artifactgen.types import Failure, Sample

_LOOKED_AT = 64


@dataclass(frozen=True, kw_only=True)
class WebDataset(Pictures):
    """Records are neighbouring members of tar shards that have one name up to its first dot.

    `<key>.jpg` (or another kind of picture) beside `<key>.cls`, a number or a name, or
    `<key>.json`, `{"label": …}`; the key, with its folders, is the id. Without a picture a record
    is a `Failure`, without a label its label is unknown.

    Splits: `train`, `val` and `test` as they are given, or `path`, whose files' names tell them,
    see `artifactgen.data.splits`. Shards are sorted by name.
    """

    path: str | None = None
    """Shards: a glob, with ranges like `{000..009}`."""
    train: str | None = None
    val: str | None = None
    test: str | None = None
    image_key: str | None = None
    """Extension of the pictures; None = the one that there is."""
    label_key: str | None = None
    """Extension of the labels; None = `cls`, else `json`."""
    classes: tuple[str, ...] | None = None

    def scan(self) -> Catalog:
        """Read all headers and labels; a few pictures are looked at.

        Raises:
            DataError: no shard, one that is not as configured, or ids that are not unique.
        """
        splits = self._shards()
        listings, classes, highest = scan_shards(
            splits, Keys(self.image_key, self.label_key), self.classes
        )
        channels, dtype = first_kind(
            (f"{row[ID]} in {row[SHARD]}", partial(self._kind_at, splits[split].root, row))
            for split, listing in listings.items()
            for row in evenly({split: listing}, _LOOKED_AT)
        )
        return Catalog(
            splits=listings,
            classes=classes,
            channels=channels,
            identity=digest_of(listings, classes, columns=(ID, SHARD, LABEL)),
            content=_content(splits, listings),
            dtype=dtype,
            highest_label=highest,
        )

    def read(
        self, catalog: Catalog, split: str, start: int, stop: int
    ) -> Iterator[Sample | Failure]:
        """Decode rows `start` to `stop` of a split, each a `Sample` or a `Failure`."""
        root = root_of(self.path or getattr(self, split))
        rows = listed_rows(catalog, split, start, stop)
        for name, found in groupby(rows, key=lambda row: str(row[1][SHARD])):
            refs = list(found)
            with (root / name).open("rb", buffering=0) as file:
                decode = partial(self._decode_row, catalog, file.fileno())
                yield from decode_each(refs, decode, split=split, start=start)
            start += len(refs)

    def files(self, catalog: Catalog, split: str, start: int, stop: int) -> Iterator[str]:
        """Paths of the shards that hold rows `start` to `stop` of a split."""
        root = root_of(self.path or getattr(self, split))
        rows = listed_rows(catalog, split, start, stop)
        return iter(dict.fromkeys(str(root / row[SHARD]) for _, row in rows))

    def _kind_at(self, root: Path, found: dict[str, Any]) -> tuple[int, str]:
        with (root / found[SHARD]).open("rb", buffering=0) as file:
            return self.kind_of_data(_picture(file.fileno(), found))

    def _decode_row(
        self, catalog: Catalog, descriptor: int, row: int, record_id: str, found: dict[str, Any]
    ) -> Sample:
        data = _picture(descriptor, found)
        return self.sample(data, record_id, row, catalog=catalog, label=found[LABEL])

    def _shards(self) -> dict[str, Shards]:
        """The shards of each split.

        Raises:
            ConfigError: they are given twice, or not at all.
            DataError: there is no such file.
        """
        given = {name: getattr(self, name) for name in ("train", "val", "test")}
        given = {name: pattern for name, pattern in given.items() if pattern}
        if bool(given) == bool(self.path):
            raise ConfigError(
                "Set data.path, whose files' names tell their splits, or one glob per split: "
                f"data.train, data.val, data.test. {'Both are' if given else 'Neither is'} set."
            )
        if self.path:
            names = group_by_split(
                _names("path", self.path), remedy="set data.train, data.val, data.test"
            )
            return {split: Shards(root_of(self.path), own) for split, own in names.items()}
        return {split: Shards(root_of(own), _names(split, own)) for split, own in given.items()}


def _content(splits: Mapping[str, Shards], listings: Mapping[str, Listing]) -> str:
    """With where the pictures lie: a shard that is packed anew holds the same records."""
    files = files_digest([path for own in splits.values() for path in own.paths()])
    places = digest_of(listings, columns=(OFFSET, SIZE))
    return hashlib.sha256(f"{files}{places}".encode()).hexdigest()


def _names(option: str, pattern: str) -> list[str]:
    """Shards that a pattern stands for, relative to its root."""
    patterns = [pattern] if Path(pattern).exists() else expand_braces(pattern)
    found = {
        path
        for each in patterns
        for path in files_matching(each, of_folder="*.tar", key=f"data.{option}")
    }
    return sorted(path.relative_to(root_of(pattern)).as_posix() for path in found)


def _picture(descriptor: int, found: dict[str, Any]) -> bytes:
    size = found[SIZE]
    if size == ABSENT:
        raise RecordError("no picture beside its other members")
    data = os.pread(descriptor, size, found[OFFSET])
    if len(data) < size:
        raise RecordError(f"cut short: {len(data):,} of {size:,} bytes")
    return data
