"""Tables of records with any fields: refused in words, or a catalog whose rows all read."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.broken import encoded, picture
from helpers.strategies import any_text, damaged, fuzzed, record_ids, refused_or_read, scratch
from hypothesis import given
from hypothesis import strategies as st

from artifactgen.data.manifest import Manifest
from artifactgen.types import Framing

GOOD = encoded(picture(0, (9, 11)))
Fields = dict[str, Any]

paths = st.one_of(
    st.sampled_from(["a.png", "b.png", "sub/c.png", "", "../out.png", "/etc/passwd", "sub", "no"]),
    any_text(12),
)
labels = st.one_of(st.sampled_from(["cat", "dog", "", "0", "1", "-1", "nan", "1e9"]), any_text(5))
splits = st.one_of(st.sampled_from(["train", "val", "test", ""]), any_text(5))


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], list[list[str]]]:
    """A header and rows, often such as the program expects, often not."""
    columns = draw(
        st.lists(
            st.sampled_from(["record_id", "path", "split", "label", "other", ""]),
            max_size=5,
        )
    )
    columns = list(dict.fromkeys([*columns, *(["path"] if draw(st.booleans()) else [])]))
    of_column = {"record_id": record_ids(), "path": paths, "split": splits, "label": labels}
    row = st.tuples(*(of_column.get(name, any_text(5)) for name in columns)).map(list)
    return columns, draw(st.lists(row, max_size=6))


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8", errors="surrogatepass") as file:
        csv.writer(file).writerows([columns, *rows])


def write_parquet(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    values = [[_plain(row[at]) for row in rows] for at in range(len(columns))]
    arrays = [pa.array(column, pa.string()) for column in values]
    pq.write_table(pa.Table.from_arrays(arrays, names=list(columns)), path)


def _plain(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def read_all(path: Path) -> None:
    refused_or_read(Manifest(path=str(path), image_size=(8, 8), framing=Framing()))


def write_pictures(folder: Path) -> None:
    (folder / "sub").mkdir()
    for name in ("a.png", "b.png", "sub/c.png"):
        (folder / name).write_bytes(GOOD)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@given(tables())
@fuzzed(100)
def test_any_table(kind: str, table: tuple[list[str], list[list[str]]]) -> None:
    with scratch() as folder:
        write_pictures(folder)
        write = {"csv": write_csv, "parquet": write_parquet}[kind]
        write(folder / f"table.{kind}", *table)
        read_all(folder / f"table.{kind}")


@given(damaged(b"record_id,path,split,label\na,a.png,train,cat\nb,b.png,val,dog\n"))
@fuzzed(60)
def test_a_damaged_table(data: bytes) -> None:
    with scratch() as folder:
        write_pictures(folder)
        (folder / "table.csv").write_bytes(data)
        read_all(folder / "table.csv")
