"""The source itself: options, and the reading of ranges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from artifactgen.data.base import Catalog, decode_each, is_of_the_file
from artifactgen.data.content import MOST_SAMPLED, files_digest
from artifactgen.data.parquet.columns import Asked
from artifactgen.data.parquet.files import find_tables
from artifactgen.data.parquet.index import Piece, TableIndex
from artifactgen.data.parquet.picture import file_of, picture_of
from artifactgen.data.parquet.scan import scan_tables
from artifactgen.data.parquet.tables import Rows, open_rows, value_in
from artifactgen.data.pictures import Pictures, first_kind
from artifactgen.data.sampling import even_places, even_rows
from artifactgen.errors import RecordError
from artifactgen.types import UNKNOWN_LABEL, Failure, Sample

_LOOKED_AT = 64


@dataclass(frozen=True, kw_only=True)
class Parquet(Pictures):
    """Records are rows of Parquet or Arrow tables that hold the files of pictures.

    As the Hugging Face hub keeps them, or as `datasets` saves them to disk: a column of structs of
    `bytes` and `path`, or of bytes alone; where bytes are missing, the file at `path` is read,
    relative to the table. A row with several pictures is a `Failure`.

    Splits: those of a saved `DatasetDict`; a column; else the names of files and folders, see
    `artifactgen.data.splits`. Ids: a column, else `<split>_<row>`, the row in six digits.

    Labels: a column of integers, negative or null where unknown, or of texts. Names of the classes:
    the option, else `ClassLabel`'s of `datasets`, else the texts sorted, else numbers.
    """

    path: str
    """A folder, a file or a glob."""
    image_column: str | None = None
    """None = `Image` of `datasets`, else the only column that can be."""
    label_column: str | None = None
    """None = `ClassLabel` of `datasets`, else `label` or `labels`, else none."""
    id_column: str | None = None
    """Texts or integers, unique over all splits; None = `record_id` where there is one."""
    split_column: str | None = None
    """None = `split` where there is one."""
    classes: tuple[str, ...] | None = None
    exif_rotate: bool = True
    """`datasets` turns pictures as well."""

    def scan(self) -> Catalog:
        """Read the ends of the files and the small columns; a few pictures are looked at.

        Raises:
            DataError: no table, one that is not as configured, or ids that are not unique.
        """
        found = find_tables(self.path)
        asked = Asked(self.image_column, self.label_column, self.id_column, self.split_column)
        scanned = scan_tables(found, asked, self.classes)
        channels, dtype = first_kind(
            (f"{ref.path}, row {ref.position} of group {ref.group}", partial(self._kind_at, ref))
            for ref in _sampled(scanned.splits)
        )
        tables = [found.root / name for names in found.splits.values() for name in names]
        return Catalog(
            splits=scanned.splits,
            classes=scanned.classes,
            channels=channels,
            identity=scanned.identity,
            content=files_digest([*tables, *_files_beside(scanned.splits)]),
            dtype=dtype,
            highest_label=scanned.highest_label,
        )

    def read(
        self, catalog: Catalog, split: str, start: int, stop: int
    ) -> Iterator[Sample | Failure]:
        """Decode rows `start` to `stop` of a split, each a `Sample` or a `Failure`."""
        index = catalog.splits[split]
        assert isinstance(index, TableIndex)
        decode = partial(self._decode_row, catalog)
        for piece in index.pieces(start, stop):
            found = _refs(index, piece)
            ids = index.record_ids(start, start + len(found))
            refs = list(zip(ids, found, strict=True))
            place = Path(piece.path).parent
            yield from decode_each(refs, decode, split=split, start=start, place=place)
            start += len(found)

    def files(self, catalog: Catalog, split: str, start: int, stop: int) -> Iterator[str]:
        """Paths of the tables that hold rows `start` to `stop` of a split; not what they name."""
        index = catalog.splits[split]
        assert isinstance(index, TableIndex)
        return iter(dict.fromkeys(piece.path for piece in index.pieces(start, stop)))

    def _kind_at(self, ref: _Ref) -> tuple[int, str]:
        return self.kind_of_data(ref.picture(ref.found()))

    def _decode_row(self, catalog: Catalog, row: int, record_id: str, ref: _Ref) -> Sample:
        found = ref.found()
        label = UNKNOWN_LABEL
        if ref.index.columns.label is not None:
            label = _label(value_in(found, ref.index.columns.label), catalog.classes)
        return self.sample(ref.picture(found), record_id, row, catalog=catalog, label=label)


@dataclass(frozen=True, slots=True)
class _Ref:
    """Where a record lies."""

    index: TableIndex
    path: str
    group: int
    position: int
    rows: Rows

    def found(self) -> Mapping[str, Any]:
        return self.rows.row(self.position)

    def picture(self, found: Mapping[str, Any]) -> bytes:
        value = value_in(found, self.index.columns.image)
        return picture_of(value, beside=Path(self.path).parent)

    def file_beside(self) -> Path | None:
        """The file that the table names in place of the picture's bytes."""
        try:
            value = value_in(self.found(), self.index.columns.image)
            return file_of(value, beside=Path(self.path).parent)
        except (RecordError, OSError, ValueError) as error:
            if isinstance(error, OSError) and not is_of_the_file(error):
                raise
            return None


def _refs(index: TableIndex, piece: Piece) -> list[_Ref]:
    rows = open_rows(piece.path, piece.group, index.columns.of_a_row)
    return [
        _Ref(index, piece.path, piece.group, position, rows)
        for position in piece.positions.tolist()
    ]


def _sampled(splits: Mapping[str, TableIndex]) -> list[_Ref]:
    """The first records of row groups, evenly spaced: those cost the least."""
    firsts = [(index, row) for index in splits.values() for row in index.starts()]
    chosen = [firsts[place] for place in even_places(len(firsts), _LOOKED_AT)]
    return [ref for index, row in chosen for ref in _at(index, row)]


def _at(index: TableIndex, row: int) -> list[_Ref]:
    return [ref for piece in index.pieces(row, row + 1) for ref in _refs(index, piece)]


def _files_beside(splits: Mapping[str, TableIndex]) -> list[Path]:
    """Files that the tables name, evenly spaced; none where the pictures lie in the tables."""
    found: list[Path] = []
    for name, row in even_rows(splits, MOST_SAMPLED):
        for ref in _at(splits[name], row):
            file = ref.file_beside()
            if file is None and not found:
                return []
            found += [file] if file else []
    return found


def _label(value: Any, classes: tuple[str, ...]) -> int:
    if isinstance(value, str):
        return _numbers(classes)[value]
    return UNKNOWN_LABEL if value is None else max(int(value), UNKNOWN_LABEL)


@lru_cache(4)
def _numbers(classes: tuple[str, ...]) -> Mapping[str, int]:
    return {name: number for number, name in enumerate(classes)}
