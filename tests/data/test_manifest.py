from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from artifactgen.data.base import Catalog
from artifactgen.data.listing import BLOCK_ROWS
from artifactgen.data.manifest import Manifest
from artifactgen.errors import DataError
from artifactgen.types import Failure, Framing, Sample

Write = Callable[..., Manifest]
PICTURES = tuple(f"{i}.png" for i in range(4))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A table beside four pictures."""
    for i, name in enumerate(PICTURES):
        Image.fromarray(np.full((9, 8, 3), i * 40, np.uint8)).save(tmp_path / name)

    def table(content: str | bytes | dict[str, Any], **options: Any) -> Manifest:
        path = tmp_path / "table.anything"
        if isinstance(content, dict):
            pq.write_table(pa.table(content), path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return Manifest(path=str(path), image_size=(6, 6), framing=Framing(), **options)

    return table


def ids(catalog: Catalog) -> dict[str, list[str]]:
    return {split: list(rows.record_ids(0, len(rows))) for split, rows in catalog.splits.items()}


def labels(source: Manifest) -> dict[str, int]:
    catalog = source.scan()
    return {record.record_id: record.label for record in read(source, catalog)}  # type: ignore[union-attr]


def read(source: Manifest, catalog: Catalog) -> list[Sample | Failure]:
    return [r for s, rows in catalog.splits.items() for r in source.read(catalog, s, 0, len(rows))]


ROWS = {
    "record_id": ["a", "b", "c", "d"],
    "path": list(PICTURES),
    "split": ["train", "test", "train", "val"],
    "label": ["eel", "cat", "cat", "eel"],
}


def as_csv(rows: dict[str, list[str]], separator: str = ",") -> str:
    lines = [rows, *zip(*rows.values(), strict=True)]
    return "\n".join(separator.join(line) for line in lines) + "\n"


@pytest.mark.parametrize(
    "separator", [",", ";", "\t", "|"], ids=["comma", "semicolon", "tab", "bar"]
)
def test_csv_with_any_separator_and_with_a_bom(write: Write, separator: str) -> None:
    source = write(b"\xef\xbb\xbf" + as_csv(ROWS, separator).encode())
    assert ids(source.scan()) == {"test": ["b"], "train": ["a", "c"], "val": ["d"]}
    assert source.scan().classes == ("cat", "eel")
    assert labels(source) == {"a": 1, "b": 0, "c": 0, "d": 1}


def test_parquet_is_the_same_data_set_as_csv(write: Write) -> None:
    of_csv = write(as_csv(ROWS)).scan()
    of_parquet = write(ROWS).scan()
    assert ids(of_csv) == ids(of_parquet)
    assert of_csv.identity == of_parquet.identity
    assert of_csv.content == of_parquet.content


def test_only_the_path_has_to_be_there(write: Write) -> None:
    source = write("path\n" + "\n".join(PICTURES))
    assert ids(source.scan()) == {"test": ["0", "1", "2", "3"]}
    assert source.scan().classes == ()
    assert set(labels(source).values()) == {-1}


def test_columns_go_by_the_names_that_are_given(write: Write) -> None:
    source = write(
        {
            "patient": ["007", "7"],
            "file": ["0.png", "1.png"],
            "fold": ["validation", "Train"],
            "diagnosis": ["b", "a"],
        },
        id_column="patient",
        path_column="file",
        split_column="fold",
        label_column="diagnosis",
    )
    assert ids(source.scan()) == {"train": ["7"], "val": ["007"]}
    assert labels(source) == {"007": 1, "7": 0}


def test_whole_numbers_are_labels_as_they_are(write: Write) -> None:
    source = write({"path": list(PICTURES), "label": [3, None, -1, 1]})
    catalog = source.scan()
    assert catalog.classes == ("0", "1", "2", "3")
    assert catalog.highest_label == ("0", 3)
    assert labels(source) == {"0": 3, "1": -1, "2": -1, "3": 1}


def test_whole_numbers_may_be_written_as_pandas_does_beside_missing_ones(write: Write) -> None:
    source = write("path,label\n0.png,10.0\n1.png,\n2.png,-1.0\n3.png,2.0\n")
    assert labels(source) == {"0": 10, "1": -1, "2": -1, "3": 2}
    assert source.scan().highest_label == ("0", 10)


def test_whole_numbers_count_classes_that_are_named(write: Write) -> None:
    source = write("path,label\n0.png,1\n1.png,0\n", classes=("healthy", "ill"))
    assert source.scan().classes == ("healthy", "ill")
    assert source.scan().highest_label is None
    assert labels(source) == {"0": 1, "1": 0}


def test_names_that_are_given_have_their_order(write: Write) -> None:
    assert labels(write(as_csv(ROWS), classes=("eel", "cat"))) == {"a": 0, "b": 1, "c": 1, "d": 0}


def test_paths_are_relative_to_the_table_or_to_the_root_or_absolute(
    write: Write, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "0.png").rename(tmp_path / "sub/0.png")
    table = f"record_id,path\na,0.png\nb,{tmp_path / '1.png'}\n"
    source = write(table, root=str(tmp_path / "sub"))
    assert all(isinstance(record, Sample) for record in read(source, source.scan()))


def test_values_in_quotes_may_hold_separators_and_line_ends(write: Write, tmp_path: Path) -> None:
    (tmp_path / "0.png").rename(tmp_path / "a, b.png")
    source = write('record_id,path\n"two\nlines","a, b.png"\n')
    assert ids(source.scan()) == {"test": ["two\nlines"]}
    assert isinstance(read(source, source.scan())[0], Sample)


def test_a_file_that_is_missing_is_one_failure(write: Write) -> None:
    source = write("path\n0.png\nabsent.png\n1.png\n")
    found = read(source, source.scan())
    assert [type(record).__name__ for record in found] == ["Sample", "Failure", "Sample"]
    assert "absent.png: No such file" in found[1].reason  # type: ignore[union-attr]


def test_what_is_no_regular_file_is_a_failure_and_not_waited_for(
    write: Write, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to("loop.png")
    source = write("path\npipe.png\nfolder.png\nloop.png\n/dev/zero\n0.png\n")
    found = read(source, source.scan())
    assert [type(record).__name__ for record in found] == ["Failure"] * 4 + ["Sample"]
    assert "pipe.png: not a regular file" in found[0].reason  # type: ignore[union-attr]
    assert "loop.png: Too many levels of symbolic links" in found[2].reason  # type: ignore[union-attr]


def test_a_path_with_a_nul_is_refused(write: Write) -> None:
    with pytest.raises(DataError, match="path in row 2 holds a NUL"):
        write({"record_id": ["a", "b"], "path": ["0.png", "1\0.png"]}).scan()


def test_ids_that_differ_in_case_are_distinct(write: Write) -> None:
    assert ids(write("record_id,path\na,0.png\nA,1.png\n").scan()) == {"test": ["a", "A"]}


TWICE = "record_id,path\n" + "".join(f"{i},0.png\n{i},1.png\n" for i in range(7))
NORMALISED = "record_id,path\n" + "".join(
    f"{unicodedata.normalize(form, 'Zoë')},0.png\n" for form in ("NFC", "NFD")
)
LATIN_1 = ("path\n" + "0.png\n" * 999 + "ë.png").encode("latin-1")
BAD = {
    "no path column": ("record_id,file\na,0.png\n", r"path\. .*record_id, file.*data\.path_col"),
    "a near name": ("record_id,paths\na,0.png\n", "Did you mean paths"),
    "empty": ("", "it is empty"),
    "only a head": ("record_id,path\n", "without rows"),
    "twice": (TWICE, r"more than once: 0, 1, 2, 3, 4\. "),
    "twice after normalisation": (NORMALISED, "more than once: Zoë"),
    "twice over splits": ("record_id,path,split\na,0.png,x\na,1.png,y\n", "more than once: a"),
    "too few fields": ("record_id,path\na,0.png\nb\n", r"Row #3: Expected 2 columns, got 1"),
    "too many fields": ("record_id,path\na,0.png,x\n", r"Row #2: Expected 2 columns, got 3"),
    "Latin-1": ("record_id,path\nZoë,0.png\n".encode("latin-1"), "UTF-8"),
    "Latin-1 far below": (LATIN_1, "Save the table as UTF-8"),
    "UTF-16": ("record_id,path\na,0.png\n".encode("utf-16"), "nor text in UTF-8"),
    "no path in a row": ("record_id,path\na,0.png\nb,\n", "no path in row 2"),
    "no id in a row": ("record_id,path\n,0.png\n", "no record_id in row 1"),
    "one column twice": ("path,path\n0.png,1.png\n", "two columns are called path"),
    "no file is there": ("path\nx/1.png\nx/2.png\n", "none is there; the first was /.*x/1.png"),
    "no picture": ("path\ntable.anything\n", "None of the first pictures can be read"),
    "a long id": (f"record_id,path\n{'x' * 1025},0.png\n", "has 1,025 characters"),
    "a huge label": ("path,label\n0.png,5000000\n", "label 5000000"),
    "a page": ("<html>\n<body>,</body>", "a web page"),
    "cut Parquet": (b"PAR1" + bytes(90), "broken Parquet"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "reason"), BAD.values(), ids=BAD)
def test_a_table_that_cannot_be_used_is_refused_with_the_reason(
    write: Write, content: str | bytes, reason: str
) -> None:
    with pytest.raises(DataError, match=reason):
        write(content).scan()


def test_a_label_that_is_no_class_is_refused(write: Write) -> None:
    with pytest.raises(DataError, match=r"label eel is none of data\.classes\. Did you mean eels"):
        write(as_csv(ROWS), classes=("cat", "eels")).scan()


def test_a_table_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        Manifest(path=str(tmp_path / "absent.csv")).scan()


def test_many_rows_keep_their_order_in_every_split(write: Write) -> None:
    rows = 3 * BLOCK_ROWS + 7
    splits = [("train", "val", "test")[i % 3] for i in range(rows)]
    names = [f"{i:07d}" for i in range(rows)]
    source = write({"record_id": names, "path": ["0.png"] * rows, "split": splits})
    found = ids(source.scan())
    assert {split: len(rows) for split, rows in found.items()} == {
        "train": BLOCK_ROWS + 3, "val": BLOCK_ROWS + 2, "test": BLOCK_ROWS + 2
    }  # fmt: skip
    assert all(names == sorted(names) for names in found.values())
    catalog = source.scan()
    (record,) = source.read(catalog, "train", BLOCK_ROWS, BLOCK_ROWS + 1)
    assert record.record_id == found["train"][BLOCK_ROWS]


def test_rows_of_a_split_of_several_names_keep_their_order(write: Write) -> None:
    source = write("record_id,path,split\na,0.png,valid\nb,1.png,val\nc,2.png,\nd,3.png,valid\n")
    assert ids(source.scan()) == {"test": ["c"], "val": ["a", "b", "d"]}


def test_a_duplicate_far_away_is_found(write: Write) -> None:
    names = [f"{i:07d}" for i in range(2 * BLOCK_ROWS)] + ["0000003"]
    with pytest.raises(DataError, match="more than once: 0000003"):
        write({"record_id": names, "path": ["0.png"] * len(names)}).scan()
