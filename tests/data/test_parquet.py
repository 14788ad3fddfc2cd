"""Tables of pictures, written by `datasets` and by pyarrow, against what `datasets` reads."""

from __future__ import annotations

import io
import json
import traceback
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from artifactgen.data.base import Catalog
from artifactgen.data.parquet import Parquet, tables
from artifactgen.data.reading import read_range, scan_source
from artifactgen.errors import DataError
from artifactgen.types import Failure, Framing, Sample

SQUASH = Framing(crop_mode="squash", interpolation="nearest")
NAMES = ["cat", "dog", "eel"]
LABELS = [0, 2, 1, -1, 2, 0, 1]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The library `datasets`, without a network and a home."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    import datasets  # reads the environment when it is imported

    datasets.disable_progress_bars()
    return datasets


def picture_file(seed: int, ending: str = "PNG", *, size: int = 16, **options: Any) -> bytes:
    picture = np.random.default_rng(seed).integers(0, 256, (size + seed, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, ending, **options)
    return buffer.getvalue()


def turned_file(seed: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture_file(seed, "JPEG", exif=exif)


@pytest.fixture
def dataset(hub: Any) -> Any:
    files = [picture_file(0), picture_file(1, "JPEG"), turned_file(2), picture_file(3, "WEBP")]
    files += [picture_file(seed) for seed in range(4, 7)]
    features = hub.Features({"image": hub.Image(), "label": hub.ClassLabel(names=NAMES)})
    images = [{"bytes": file, "path": f"{i}.png"} for i, file in enumerate(files)]
    return hub.Dataset.from_dict({"image": images, "label": LABELS}, features=features)


def source(path: Path, size: tuple[int, int] = (18, 16), **options: Any) -> Parquet:
    return Parquet(path=str(path), image_size=size, framing=SQUASH, **options)


def read_split(made: Parquet, catalog: Catalog, split: str) -> list[Sample | Failure]:
    return read_range(made, catalog, split, 0, len(catalog.splits[split]))


def write(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return path


def images(count: int) -> list[dict[str, Any]]:
    return [{"bytes": picture_file(seed), "path": f"{seed}.png"} for seed in range(count)]


SAVED: dict[str, Callable[[Any, Any, Path], Any]] = {
    "parquet": lambda hub, made, path: made.to_parquet(path / "train-00000-of-00001.parquet"),
    "groups": lambda hub, made, path: made.to_parquet(path / "train.parquet", batch_size=2),
    "arrow": lambda hub, made, path: hub.DatasetDict(train=made).save_to_disk(path),
    "shards": lambda hub, made, path: hub.DatasetDict(train=made).save_to_disk(
        path, num_shards={"train": 3}
    ),
}


@pytest.mark.parametrize("layout", SAVED)
def test_pictures_and_labels_are_those_that_datasets_reads(
    hub: Any, dataset: Any, tmp_path: Path, layout: str
) -> None:
    folder = tmp_path / "saved"
    folder.mkdir()
    SAVED[layout](hub, dataset, folder)
    made = source(folder)
    catalog = scan_source(made)
    assert catalog.classes == tuple(NAMES)
    assert (catalog.channels, catalog.dtype, list(catalog.splits)) == (3, "uint8", ["train"])
    for row, expected in enumerate(dataset):
        # Each at its own size, so that nothing is resized.
        own = source(folder, expected["image"].size[::-1])
        (found,) = read_range(own, catalog, "train", row, row + 1)
        assert isinstance(found, Sample), found
        assert found.record_id == f"train_{row:06d}"
        assert found.label == expected["label"] == LABELS[row]
        np.testing.assert_array_equal(
            found.image_CHW.transpose(1, 2, 0), np.asarray(expected["image"].convert("RGB"))
        )


def test_pictures_are_left_as_stored_where_that_is_asked_for(dataset: Any, tmp_path: Path) -> None:
    dataset.to_parquet(tmp_path / "a.parquet")
    sizes = []
    for turn in (True, False):
        made = source(tmp_path / "a.parquet", exif_rotate=turn)
        (sample,) = read_range(made, scan_source(made), "test", 2, 3)
        assert isinstance(sample, Sample)
        sizes.append(sample.stored_size)
    assert sizes == [(16, 18), (18, 16)]


def test_splits_of_a_saved_dict(hub: Any, dataset: Any, tmp_path: Path) -> None:
    hub.DatasetDict(train=dataset, validation=dataset, unsupervised=dataset).save_to_disk(tmp_path)
    # What `map` keeps in such a folder is no table of the data set.
    cached = tmp_path / "train" / "cache-0123.arrow"
    cached.write_bytes((tmp_path / "train" / "data-00000-of-00001.arrow").read_bytes())
    catalog = source(tmp_path).scan()
    assert {split: len(index) for split, index in catalog.splits.items()} == {
        "train": 7,
        "unsupervised": 7,
        "val": 7,
    }


def test_a_saved_data_set_is_test_unless_it_knows_its_split(
    hub: Any, dataset: Any, tmp_path: Path
) -> None:
    dataset.save_to_disk(tmp_path)
    assert list(source(tmp_path).scan().splits) == ["test"]
    state = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps(state | {"_split": "validation"}))
    assert list(source(tmp_path).scan().splits) == ["val"]


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (
            ["train-00000-of-00002", "train-00001-of-00002", "validation-00000-of-00001"],
            "train,val",
        ),
        (["data/unlabelled-00000-of-00001", "data/test-00000-of-00001"], "test,unlabelled"),
        (["imdb-train", "imdb_test2"], "test,train"),
        (["training/a", "dev/a", "eval/a"], "test,train,val"),
        (["a", "b/testament"], "test"),
    ],
)
def test_splits_are_told_by_names(tmp_path: Path, names: list[str], splits: str) -> None:
    for name in names:
        write(tmp_path / f"{name}.parquet", {"image": images(2)})
    assert ",".join(source(tmp_path).scan().splits) == splits


def test_a_file_without_a_split_beside_others_with_one_is_not_passed_over(tmp_path: Path) -> None:
    for name in ("train", "more"):
        write(tmp_path / f"{name}.parquet", {"image": images(2)})
    with pytest.raises(DataError, match=r"more\.parquet: neither its name nor its folder says"):
        source(tmp_path).scan()


def test_a_column_tells_splits_ids_and_labels(tmp_path: Path) -> None:
    count = 40
    where = ["train", "validation", "test", "train"] * (count // 4)
    path = write(
        tmp_path / "a.parquet",
        {
            "picture": images(count),
            "split": where,
            "label": ["b", "a", None, "c"] * (count // 4),
        },
        row_group_size=7,
    )
    made = source(path, id_column="picture.path")
    catalog = scan_source(made)
    assert catalog.classes == ("a", "b", "c")
    assert list(catalog.splits) == ["test", "train", "val"]
    expected = [i for i in range(count) if where[i] == "train"]
    found = read_split(made, catalog, "train")
    assert [sample.record_id for sample in found] == [f"{i}.png" for i in expected]
    assert [s.label for s in found if isinstance(s, Sample)] == [1, 2] * (count // 4)
    own = source(path, (16 + 11, 16), id_column="picture.path")
    (sample,) = read_range(own, catalog, "train", 5, 6)
    assert isinstance(sample, Sample)
    stored = np.asarray(Image.open(io.BytesIO(picture_file(11))))
    np.testing.assert_array_equal(sample.image_CHW.transpose(1, 2, 0), stored)
    assert {s.label for s in read_split(made, catalog, "test") if isinstance(s, Sample)} == {-1}


def test_numbers_as_labels_have_the_highest_told(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"image": images(3), "label": [0, 4, None]})
    catalog = source(tmp_path).scan()
    assert catalog.classes == ("0", "1", "2", "3", "4")
    assert catalog.highest_label == ("test_000001", 4)


def test_texts_that_are_numbers_are_those_labels(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"image": images(3), "label": ["10", "2", None]})
    made = source(tmp_path)
    catalog = scan_source(made)
    assert catalog.classes == tuple(map(str, range(11)))
    found = read_split(made, catalog, "test")
    assert [s.label for s in found if isinstance(s, Sample)] == [10, 2, -1]


def test_a_text_that_is_too_high_for_a_label_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"image": images(1), "label": ["1000000"]})
    with pytest.raises(DataError, match="label 1000000"):
        source(tmp_path).scan()


def test_pictures_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "data" / "images").mkdir(parents=True)
    for seed in range(2):
        (tmp_path / "data" / "images" / f"{seed}.png").write_bytes(picture_file(seed))
    paths = ["images/0.png", "images/1.png", "images/2.png", "https://example.org/3.png", None]
    rows = [{"bytes": None, "path": path} for path in paths]
    write(tmp_path / "data" / "a.parquet", {"image": pa.array(rows, STRUCT)})
    made = source(tmp_path)
    catalog = scan_source(made)
    *good, missing, address, nothing = read_split(made, catalog, "test")
    assert all(isinstance(sample, Sample) for sample in good)
    assert isinstance(missing, Failure)
    assert "images/2.png: No such file or directory. The table holds paths," in missing.reason
    assert isinstance(address, Failure)
    assert address.reason.endswith("but at https://example.org/3.png: download it first")
    assert isinstance(nothing, Failure)
    assert nothing.reason == "no picture in this row"
    (tmp_path / "data" / "images" / "1.png").write_bytes(picture_file(5))
    after = made.scan()
    assert (after.identity, after.content == catalog.content) == (catalog.identity, False)


STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})


def test_lists_of_one_picture_are_read_and_of_more_not(hub: Any, tmp_path: Path) -> None:
    one = [[image] for image in images(3)]
    lists = hub.Features({"images": hub.List(hub.Image())})
    rows = [*one, images(2), []]
    hub.Dataset.from_dict({"images": rows}, features=lists).to_parquet(tmp_path / "a.parquet")
    made = source(tmp_path)
    *good, two, none = read_split(made, scan_source(made), "test")
    assert [type(sample) for sample in good] == [Sample] * 3
    assert isinstance(two, Failure)
    assert two.reason == "2 pictures in one row: make a row of each"
    assert isinstance(none, Failure)
    assert none.reason == "no picture in this row"


def test_a_damaged_page_fails_the_rest_of_its_row_group(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"image": images(12)}),
        path,
        row_group_size=4,
        compression="none",
        use_dictionary=False,
        write_page_checksum=True,
    )
    content = path.read_bytes()
    place = content.index(picture_file(5)[-30:])
    path.write_bytes(content[:place] + b"\0" + content[place + 1 :])
    made = source(path)
    found = read_split(made, scan_source(made), "test")
    assert [row for row, item in enumerate(found) if isinstance(item, Failure)] == [4, 5, 6, 7]
    assert "CRC checksum verification failed" in found[4].reason  # type: ignore[union-attr]
    rows = tables.open_rows(str(path), 1, ("image",))
    depths = set()
    for _ in range(9):
        with pytest.raises(OSError, match="CRC") as caught:
            rows.row(3)
        depths.add(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len(depths) == 1  # an error that is raised for each row must not grow


def test_a_large_row_group_does_not_stay_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_WINDOW_BYTES", 1 << 20)
    monkeypatch.setattr(tables, "_PIECE_BYTES", 1 << 18)
    path = tmp_path / "a.parquet"
    files = [picture_file(i % 5, size=200) for i in range(160)]
    write(path, {"image": files}, compression="none", use_dictionary=False, data_page_size=1 << 18)
    assert path.stat().st_size > 18 << 20
    made = source(path)
    catalog = scan_source(made)
    before = pa.total_allocated_bytes()
    assert all(isinstance(item, Sample) for item in read_split(made, catalog, "test"))
    assert pa.total_allocated_bytes() - before < 4 << 20
    # Those who read what is gone from memory get the same.
    assert read_range(made, catalog, "test", 3, 4)[0].record_id == "test_000003"


def test_many_records_take_no_object_each(tmp_path: Path) -> None:
    count = 300_000
    image = pa.array([{"bytes": picture_file(0), "path": None}], STRUCT)
    rows = pa.array([0] * count, pa.int32())
    table = pa.table({"image": image.take(rows), "label": rows})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=100_000, compression="zstd")
    del image, rows, table
    tracemalloc.start()
    catalog = source(tmp_path).scan()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(catalog.splits["test"]) == count
    assert peak < 60 * count


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"a": [1, 2]}, {}, "no column holds files of pictures.*Its columns: a (int64)"),
        ({"a": [b"", b""], "b": [b"", b""]}, {}, "data.image_column=a or data.image_column=b"),
        (
            {"a": [b""]},
            {"image_column": "b"},
            "=b: .* has no such column. Known: a",
        ),
        ({"a": [b""], "c": [1.5]}, {"label_column": "c"}, "has double there, not labels"),
        ({"a": [b""], "c": [1_000_000]}, {"label_column": "c"}, "c goes up to 1000000; labels"),
        ({"a": [b"x"], "label": ["u"]}, {"classes": ("v",)}, "label: there is a label u, but the"),
        ({"a": [b"x"], "label": [3]}, {"classes": ("v",)}, "Labels go up to 3, but there are 1"),
        ({"a": [b"x"] * 2, "record_id": ["e\u0301", "\u00e9"]}, {}, "1 record ids occur more than"),
        ({"a": [b"x"] * 2, "record_id": ["u", None]}, {}, "record_id is empty in row 1 of 2"),
        ({"a": [b"x"], "record_id": ["u" * 2000]}, {}, "has 2,000 characters; at most 1,024"),
        ({"a": pa.array([], pa.binary())}, {}, "a.parquet: no rows"),
        ({"a": [b"x", b""]}, {}, "None of the first pictures can be read"),
    ],
)
def test_a_table_that_is_not_as_configured_is_refused(
    tmp_path: Path, columns: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "a.parquet", columns)
    pattern = message.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(DataError, match=pattern):
        scan_source(source(path, **options))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PAR1" + b"\0" * 400, "cannot be read as a table"),
        (b"", "is empty; data=parquet reads"),
        (b"\x89HDF\r\n\x1a\n", "is an HDF5 file; data=parquet reads"),
        (b"ARROW1" + b"\0" * 400, "cannot be read as a table"),
    ],
)
def test_a_file_that_is_no_table_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "b.parquet").write_bytes(content)
    with pytest.raises(DataError, match=f"b.parquet {reason}"):
        scan_source(source(tmp_path))


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_a_table_that_is_cut_short_is_refused(tmp_path: Path, name: str, share: float) -> None:
    table, path = pa.table({"image": images(20)}), tmp_path / name
    if name.endswith("parquet"):
        pq.write_table(table, path)
    else:
        with pa.ipc.new_stream(path, table.schema) as stream:
            stream.write_table(table, max_chunksize=4)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=name):
        scan_source(source(path))


def test_tables_of_several_kinds_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {"image": images(2), "label": [0, 1]})
    write(tmp_path / "b.parquet", {"image": images(2)})
    with pytest.raises(DataError, match=r"b.parquet is another table than .*a.parquet"):
        source(tmp_path).scan()
