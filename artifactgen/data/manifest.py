"""Tables of records: `record_id, path, split, label`, in CSV or Parquet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from artifactgen.data.base import Catalog
from artifactgen.data.files import Files
from artifactgen.data.folders import PATH
from artifactgen.data.manifest_rows import Columns, list_table, read_facts
from artifactgen.data.sampling import evenly
from artifactgen.data.tables import Table, open_table
from artifactgen.data.volume_listing import catalog_of, listed_files, read_listed
from artifactgen.errors import ConfigError, DataError
from artifactgen.types import Failure, Sample

_LOOKED_FOR = 64
"""Files that are looked for before any work."""


@dataclass(frozen=True, kw_only=True)
class Manifest(Files):
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
    slice_column: str = "slice"
    """Indices of slices, as `slice` has them, which stands where the field is empty."""
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
            ConfigError: options that no volume could fulfil.
        """
        self.check_options()
        columns = Columns(
            self.id_column,
            self.path_column,
            self.split_column,
            self.label_column,
            self.slice_column,
        )
        table = open_table(Path(self.path), expected=columns.names)
        table.require(self.path_column, option="data.path_column")
        self._check_slices(table)
        facts = read_facts(table, columns, self.classes)
        listings, highest = list_table(table, columns, facts)
        self._require_some(self._paths(row)[0] for row in evenly(listings, _LOOKED_FOR))
        catalog = catalog_of(self, listings, facts.classes, self._paths)
        return replace(catalog, highest_label=highest)

    def read(
        self, catalog: Catalog, split: str, start: int, stop: int
    ) -> Iterator[Sample | Failure]:
        """Decode rows `start` to `stop` of a split, each a `Sample` or a `Failure`."""
        place = self.folder
        return read_listed(self, catalog, split, start, stop, paths=self._paths, place=place)

    def files(self, catalog: Catalog, split: str, start: int, stop: int) -> Iterator[str]:
        """Paths of the files that rows `start` to `stop` of a split lie in, and the table."""
        yield self.path
        yield from listed_files(catalog, split, start, stop, paths=self._paths)

    def _paths(self, row: dict[str, Any]) -> tuple[Path, ...]:
        return (self.folder / row[PATH],)

    def _check_slices(self, table: Table) -> None:
        if self.expand is not None and self.slice_column in table.columns:
            raise ConfigError(
                f"data.expand={self.expand}, and {self.path} has a column {self.slice_column}: "
                "either every slice is a record, or the table says which."
            )

    def _require_some(self, paths: Iterable[Path]) -> None:
        looked_for = list(paths)
        if not any(path.exists() for path in looked_for):
            raise DataError(
                f"{self.path}: of the files that it names {len(looked_for)} were looked for, and "
                f"none is there; the first was {looked_for[0].absolute()}.\n"
                "Paths are relative to the folder of the table, or to data.root."
            )
