"""Tables of records: `record_id, path, split, label`, in CSV or Parquet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from artifactgen.data.base import Catalog, decode_each
from artifactgen.data.content import MOST_SAMPLED, files_digest
from artifactgen.data.folders import LABEL, PATH
from artifactgen.data.listing import Listing, digest_of, evenly, listed_rows
from artifactgen.data.manifest_rows import Columns, list_table, read_facts
from artifactgen.data.pictures import Pictures
from artifactgen.data.tables import open_table
from artifactgen.errors import DataError
from artifactgen.types import Failure, Sample

_LOOKED_FOR = 64
"""Files that are looked for before any work."""


@dataclass(frozen=True, kw_only=True)
class Manifest(Pictures):
    """Records are the rows of a table, in its order; one column says where the file lies.

    Without a column of ids, a record's is its path without the ending; without one of splits all
    are `test`; without one of labels they are unknown, as where the field is empty.

    Labels are names of classes, numbered by their sorted names or in the order of `classes`; where
    all are whole numbers they are the numbers of the classes themselves, -1 where unknown.
    """

    path: str
    """The table; whether it is CSV or Parquet is told by its content."""
    root: str | None = None
    """Folder that paths are relative to; None = the table's."""
    id_column: str = "record_id"
    path_column: str = "path"
    split_column: str = "split"
    label_column: str = "label"
    classes: tuple[str, ...] | None = None
    """Names of the classes in the order of their labels; None = sorted."""

    @property
    def folder(self) -> Path:
        """What paths are relative to."""
        return Path(self.path).parent if self.root is None else Path(self.root)

    def scan(self) -> Catalog:
        """Read the table twice: which splits and classes there are, then all of its rows.

        Raises:
            DataError: the table, its columns, ids or labels are not as configured, or none of the
                files that it names is there.
        """
        columns = Columns(self.id_column, self.path_column, self.split_column, self.label_column)
        table = open_table(Path(self.path), expected=columns.names)
        table.require(self.path_column, option="data.path_column")
        facts = read_facts(table, columns, self.classes)
        listings, highest = list_table(table, columns, facts)
        some = [self.folder / row[PATH] for row in evenly(listings, MOST_SAMPLED)]
        self._require_some(some[:_LOOKED_FOR])
        channels, dtype = self.kind_of_first(some)
        return Catalog(
            splits=listings,
            classes=facts.classes,
            channels=channels,
            identity=_identity(facts.classes, listings),
            content=files_digest(some),
            dtype=dtype,
            highest_label=highest,
        )

    def read(
        self, catalog: Catalog, split: str, start: int, stop: int
    ) -> Iterator[Sample | Failure]:
        """Decode rows `start` to `stop` of a split, each a `Sample` or a `Failure`."""
        rows = listed_rows(catalog, split, start, stop)
        decode = partial(self._decode_row, catalog)
        return decode_each(rows, decode, split=split, start=start, place=self.folder)

    def _decode_row(
        self, catalog: Catalog, row: int, record_id: str, found: dict[str, Any]
    ) -> Sample:
        data = (self.folder / found[PATH]).read_bytes()
        return self.sample(data, record_id, row, catalog=catalog, label=found[LABEL])

    def _require_some(self, paths: list[Path]) -> None:
        if not any(path.exists() for path in paths):
            raise DataError(
                f"{self.path}: of the files that it names {len(paths)} were looked for, and none "
                f"is there; the first was {paths[0].absolute()}.\n"
                "Paths are relative to the folder of the table, or to data.root."
            )


def _identity(classes: tuple[str, ...], listings: Mapping[str, Listing]) -> str:
    return hashlib.sha256(f"{classes}{digest_of(listings)}".encode()).hexdigest()
