from __future__ import annotations

import multiprocessing
import pickle
import random
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from artifactgen.data.base import Catalog
from artifactgen.data.hdf5 import Hdf5
from artifactgen.errors import DataError
from artifactgen.types import Failure, Sample

RNG = np.random.default_rng(0)
UINT8_NHW = RNG.integers(0, 256, (10, 6, 5), dtype=np.uint8)


def source(path: Path | str, **options: Any) -> Hdf5:
    return Hdf5(path=str(path), **{"image_size": (6, 5), **options})


def read_all(data: Hdf5, split: str = "test") -> list[Sample]:
    catalog = data.scan()
    samples = list(data.read(catalog, split, 0, len(catalog.splits[split])))
    assert all(isinstance(sample, Sample) for sample in samples), samples
    return samples


def pixels(samples: list[Sample]) -> NDArray[Any]:
    return np.stack([sample.image_CHW for sample in samples])


def split_ids(data: Hdf5) -> dict[str, list[str]]:
    splits = data.scan().splits
    return {name: list(index.record_ids(0, len(index))) for name, index in splits.items()}


def test_splits_of_other_usual_names_are_those(tmp_path: Path, write_hdf5) -> None:
    images = {"training/images": UINT8_NHW[:2], "validation/images": UINT8_NHW[2:3]}
    assert split_ids(source(write_hdf5(tmp_path / "a.h5", images))) == {
        "train": ["a_training_0", "a_training_1"],
        "val": ["a_validation_0"],
    }
    rows = {"images": UINT8_NHW[:3], "split": ["valid", "train", "valid"]}
    found = split_ids(source(write_hdf5(tmp_path / "b.h5", rows)))
    assert found == {"train": ["b_1"], "val": ["b_0", "b_2"]}


@pytest.mark.parametrize("chunk_rows", [0, 1, 4])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "<f4"])
@pytest.mark.parametrize(("layout", "channels"), [("HW", 1), ("HWC", 3), ("CHW", 3), ("CHW", 7)])
def test_every_layout_gives_channels_first(
    tmp_path: Path, write_hdf5, layout: str, channels: int, dtype: str, chunk_rows: int, shuffle
) -> None:
    images_NCHW = RNG.integers(0, 256, (10, channels, 6, 5)).astype(dtype)
    stored = {"HW": images_NCHW[:, 0], "CHW": images_NCHW}.get(
        layout, images_NCHW.transpose(0, 2, 3, 1)
    )
    options = {"shuffle": shuffle} if chunk_rows else {}
    path = write_hdf5(tmp_path / "a.h5", {"images": stored}, chunk_rows=chunk_rows, **options)
    assert source(path).scan().channels == channels
    for option in ("auto", layout):
        found = pixels(read_all(source(path, layout=option)))
        assert found.dtype == np.dtype(dtype).newbyteorder("=")
        assert np.array_equal(found, images_NCHW)


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (np.array([[[False, True]]]), np.array([0, 255], np.uint8)),
        (np.array([[[0.1, 2.5]]], np.float64), np.array([0.1, 2.5], np.float32)),
        (np.array([[[0.5, 2.5]]], np.float16), np.array([0.5, 2.5], np.float32)),
    ],
    ids=["bool", "float64", "float16"],
)
def test_types_become_uint8_or_float32_as_documented(
    tmp_path: Path, write_hdf5, stored: NDArray[Any], expected: NDArray[Any]
) -> None:
    path = write_hdf5(tmp_path / "a.h5", {"images": stored})
    (sample,) = read_all(source(path, image_size=(1, 2)))
    assert sample.image_CHW.dtype == expected.dtype
    assert np.array_equal(sample.image_CHW[0, 0], expected)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint32])
def test_integers_without_a_range_of_pixels_are_refused(tmp_path: Path, write_hdf5, dtype) -> None:
    path = write_hdf5(tmp_path / "a.h5", {"images": UINT8_NHW.astype(dtype)})
    with pytest.raises(DataError, match="uint8 or uint16"):
        source(path).scan()


def test_images_are_resized_only_where_their_size_differs(tmp_path: Path, write_hdf5) -> None:
    path = write_hdf5(tmp_path / "a.h5", {"images": UINT8_NHW})
    resized = pixels(read_all(source(path, image_size=(3, 5))))
    assert resized.shape == (10, 1, 3, 5)
    mean = UINT8_NHW.reshape(10, 3, 2, 5).mean(axis=2)
    assert np.abs(resized[:, 0] - mean).max() <= 0.5


def test_without_splits_every_record_is_test_and_ids_are_file_and_row(
    tmp_path: Path, write_hdf5
) -> None:
    path = write_hdf5(tmp_path / "scans.h5", {"images": UINT8_NHW[:2]})
    assert split_ids(source(path)) == {"test": ["scans_0", "scans_1"]}
    assert source(path).scan().classes == ()
    assert [sample.label for sample in read_all(source(path))] == [-1, -1]


def test_files_called_after_splits_are_splits(tmp_path: Path, write_hdf5) -> None:
    for name in ("train", "val", "more"):
        write_hdf5(tmp_path / f"{name}.h5", {"images": UINT8_NHW[:1]})
    expected = {"test": ["more_0"], "train": ["train_0"], "val": ["val_0"]}
    assert split_ids(source(tmp_path / "*.h5")) == expected


def test_groups_are_splits(tmp_path: Path, write_hdf5) -> None:
    path = write_hdf5(
        tmp_path / "a.h5",
        {
            "train/images": UINT8_NHW[:2],
            "train/labels": [1, 0],
            "val/images": UINT8_NHW[2:3],
            "notes/text": [1],
        },
    )
    data = source(path)
    assert split_ids(data) == {"train": ["a_train_0", "a_train_1"], "val": ["a_val_0"]}
    assert [sample.label for sample in read_all(data, "train")] == [1, 0]
    assert [sample.label for sample in read_all(data, "val")] == [-1]


@pytest.mark.parametrize("chunk_rows", [0, 1, 4])
def test_a_split_data_set_picks_rows_in_order(tmp_path: Path, write_hdf5, chunk_rows: int) -> None:
    splits = [b"train", b"val", b"train", b"train", b"test", b"train", b"val", b"x", b"x", b"train"]
    path = write_hdf5(
        tmp_path / "a.h5",
        {
            "images": UINT8_NHW,
            "labels": np.arange(10),
            "split": splits,
            "record_ids": [f"r{i}" for i in range(10)],
        },
        chunk_rows=chunk_rows,
    )
    data = source(path)
    assert split_ids(data) == {
        "test": ["r4"],
        "train": ["r0", "r2", "r3", "r5", "r9"],
        "val": ["r1", "r6"],
        "x": ["r7", "r8"],
    }
    rows = [0, 2, 3, 5, 9]
    samples = read_all(data, "train")
    assert [sample.label for sample in samples] == rows
    assert [sample.row for sample in samples] == [0, 1, 2, 3, 4]
    assert np.array_equal(pixels(samples)[:, 0], UINT8_NHW[rows])


@pytest.mark.parametrize(
    "stored",
    [np.array([b"a", b"b/c"]), np.array(["a", "b/c"], h5py.string_dtype()), np.array([3, 11])],
    ids=["fixed length", "variable length", "integers"],
)
def test_record_ids_of_each_type(tmp_path: Path, write_hdf5, stored: NDArray[Any]) -> None:
    path = write_hdf5(tmp_path / "a.h5", {"images": UINT8_NHW[:2], "record_ids": stored})
    expected = ["3", "11"] if stored.dtype.kind == "i" else ["a", "b/c"]
    assert split_ids(source(path))["test"] == expected


def test_odd_ids_survive(tmp_path: Path, write_hdf5) -> None:
    ids = ["", "Größe", "🫀", "../../x"]
    stored = np.array([*[name.encode() for name in ids], b"\xff\xfe"])
    path = write_hdf5(tmp_path / "a.h5", {"images": UINT8_NHW[:5], "record_ids": stored})
    assert split_ids(source(path))["test"] == [*ids, "\udcff\udcfe"]


def test_ids_that_differ_in_case_only_are_two_records(tmp_path: Path, write_hdf5) -> None:
    path = write_hdf5(tmp_path / "a.h5", {"images": UINT8_NHW[:2], "record_ids": [b"a", b"A"]})
    assert split_ids(source(path))["test"] == ["a", "A"]


def test_class_names_come_from_the_option_else_an_attribute_else_the_labels(
    tmp_path: Path, write_hdf5
) -> None:
    path = write_hdf5(tmp_path / "a.h5", {"images": UINT8_NHW[:3], "labels": [0, -1, 2]})
    assert source(path).scan().classes == ("0", "1", "2")
    with h5py.File(path, "a") as file:
        file.attrs["classes"] = ["x", "y", "z"]
    assert source(path).scan().classes == ("x", "y", "z")
    with h5py.File(path, "a") as file:
        file["labels"].attrs["classes"] = np.array([b"p", b"q", b"r", b"s"])
    assert source(path).scan().classes == ("p", "q", "r", "s")
    assert source(path, classes=("i", "j", "k")).scan().classes == ("i", "j", "k")


def test_keys_are_options(tmp_path: Path, write_hdf5) -> None:
    path = write_hdf5(
        tmp_path / "a.h5",
        {"in/x": UINT8_NHW[:1], "in/y": [3], "in/name": [b"n"], "in/part": [b"val"]},
    )
    data = source(
        path, images_key="in/x", labels_key="in/y", record_ids_key="in/name", split_key="in/part"
    )
    assert split_ids(data) == {"val": ["n"]}
    assert [sample.label for sample in read_all(data, "val")] == [3]


@pytest.fixture
def many_files(tmp_path: Path, write_hdf5) -> Hdf5:
    """Seven files of random lengths, one of them empty, with scattered rows of two splits."""
    rng = np.random.default_rng(5)
    for i, n in enumerate([3, 17, 0, 40, 1, 8, 20]):
        images = rng.integers(0, 256, (n, 4, 4, 3), dtype=np.uint8)
        split = np.where(rng.random(n) < 0.7, b"train", b"val")
        write_hdf5(
            tmp_path / f"part{i}.h5",
            {"images": images, "labels": rng.integers(0, 5, n), "split": split},
            chunk_rows=[0, 1, 4, 8, 64][i % 5] if n else 0,
        )
    return source(tmp_path / "part*.h5", image_size=(4, 4))


def as_values(samples: list[Sample]) -> list[tuple[str, int, int, bytes]]:
    return [(s.record_id, s.row, s.label, s.image_CHW.tobytes()) for s in samples]


@pytest.mark.parametrize("split", ["train", "val"])
def test_ranges_equal_the_whole_across_files(many_files: Hdf5, split: str) -> None:
    catalog = many_files.scan()
    index = catalog.splits[split]
    whole = as_values(read_all(many_files, split))
    assert [value[1] for value in whole] == list(range(len(index)))
    rng = random.Random(0)
    for _ in range(60):
        start, stop = sorted(rng.choices(range(len(index) + 1), k=2))
        assert as_values(list(many_files.read(catalog, split, start, stop))) == whole[start:stop]
        assert index.record_ids(start, stop) == [value[0] for value in whole[start:stop]]


def test_small_reads_at_once_change_nothing(
    many_files: Hdf5, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = as_values(read_all(many_files, "train"))
    monkeypatch.setattr("artifactgen.data.hdf5.source._READ_BYTES", 100)
    assert as_values(read_all(many_files, "train")) == whole


def test_an_index_of_a_billion_records_is_small(tmp_path: Path) -> None:
    path = tmp_path / "big.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("images", (1_000_000_000, 8, 8), "u1", chunks=(1 << 16, 8, 8))
    catalog = source(path).scan()
    assert len(catalog.splits["test"]) == 1_000_000_000
    assert len(pickle.dumps(catalog)) < 1000
    last = catalog.splits["test"].record_ids(999_999_998, 1_000_000_000)
    assert last == ["big_999999998", "big_999999999"]


def test_two_threads_and_a_pickled_copy_read_the_same(many_files: Hdf5) -> None:
    catalog = many_files.scan()
    copy, catalog_copy = pickle.loads(pickle.dumps((many_files, catalog)))
    n = len(catalog.splits["train"])
    expected = as_values(list(many_files.read(catalog, "train", 0, n)))
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(
            lambda _: as_values(list(copy.read(catalog_copy, "train", 0, n))), range(8)
        )
        assert all(values == expected for values in found)


def test_more_files_than_are_kept_open_are_read_side_by_side(tmp_path: Path, write_hdf5) -> None:
    images = RNG.integers(0, 256, (40, 2, 6, 5), dtype=np.uint8)
    for i in range(40):
        content = {"images": images[i], "record_ids": [f"{i}a", f"{i}b"]}
        write_hdf5(tmp_path / f"{i:02d}.h5", content, chunk_rows=1)
    data = source(tmp_path / "*.h5")
    catalog = data.scan()

    def read(seed: int) -> bool:
        for row in random.Random(seed).sample(range(80), 80):
            (sample,) = data.read(catalog, "test", row, row + 1)
            if not np.array_equal(sample.image_CHW[0], images.reshape(80, 6, 5)[row]):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(8)))


def _read_in_child(data: Hdf5, queue: Any) -> None:
    queue.put(as_values(read_all(data, "train")))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_child_process_reads_the_same(many_files: Hdf5, method: str) -> None:
    expected = as_values(read_all(many_files, "train"))  # the parent's handles are open now
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=_read_in_child, args=(many_files, queue))
    child.start()
    assert queue.get(timeout=60) == expected
    child.join(60)
    assert child.exitcode == 0


def test_a_file_that_was_replaced_is_read_anew(tmp_path: Path, write_hdf5) -> None:
    path = write_hdf5(tmp_path / "a.h5", {"images": UINT8_NHW})
    assert np.array_equal(pixels(read_all(source(path)))[:, 0], UINT8_NHW)
    write_hdf5(tmp_path / "b.h5", {"images": 255 - UINT8_NHW}).replace(path)
    assert np.array_equal(pixels(read_all(source(path)))[:, 0], 255 - UINT8_NHW)


def test_identity_follows_the_data_and_not_its_place(tmp_path: Path, write_hdf5) -> None:
    def identity(folder: str, **changed: Any) -> str:
        content = {"images": UINT8_NHW, "labels": np.arange(10), "split": [b"val"] * 10, **changed}
        path = write_hdf5(tmp_path / folder / "a.h5", content)
        return source(path).scan().identity

    first = identity("a")
    assert identity("b") == first
    assert source(tmp_path / "a/a.h5", image_size=(2, 2)).scan().identity == first
    assert identity("c", labels=np.arange(10)[::-1]) != first
    assert identity("d", split=[b"val"] * 9 + [b"new"]) != first
    assert identity("e", record_ids=[str(i).encode() for i in range(10)]) != first


@pytest.mark.parametrize("rows", [10, 5000], ids=["small", "large"])
def test_other_pixels_of_the_same_size_are_other_content_of_the_same_records(
    tmp_path: Path, rows: int
) -> None:
    def scanned(folder: str, images: NDArray[Any]) -> Catalog:
        (tmp_path / folder).mkdir()
        with h5py.File(tmp_path / folder / "a.h5", "w") as file:
            file["images"] = images
        return source(tmp_path / folder / "a.h5").scan()

    images = RNG.integers(0, 256, (rows, 16, 16), dtype=np.uint8)
    first, copy, other = scanned("a", images), scanned("b", images), scanned("c", 255 - images)
    assert (copy.identity, copy.content) == (first.identity, first.content)
    assert other.identity == first.identity
    assert other.content != first.content


def test_the_highest_label_is_told_where_classes_are_made_up(tmp_path: Path, write_hdf5) -> None:
    write_hdf5(tmp_path / "a.h5", {"images": UINT8_NHW[:3], "labels": [0, -1, 2]})
    write_hdf5(tmp_path / "b.h5", {"images": UINT8_NHW[:3], "labels": [1, 10, 3]})
    write_hdf5(tmp_path / "c.h5", {"images": UINT8_NHW[:1], "labels": [-1]})
    write_hdf5(tmp_path / "d.h5", {"images": UINT8_NHW[:1]})
    assert source(tmp_path / "a.h5").scan().highest_label == ("a_2", 2)
    found = source(tmp_path / "*.h5").scan()
    assert found.highest_label == ("b_1", 10)
    assert len(found.classes) == 11
    names = tuple("abcdefghijk")
    assert source(tmp_path / "*.h5", classes=names).scan().highest_label is None
    assert source(tmp_path / "c.h5").scan().highest_label is None
    assert source(tmp_path / "d.h5").scan().highest_label is None


def test_an_image_with_too_many_pixels_is_a_failure_and_takes_no_memory(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:  # 1.6 GB each, of which nothing is written
        file.create_dataset("images", (3, 40_000, 40_000), "u1", chunks=(1, 1000, 1000))
    data = source(tmp_path / "a.h5")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = list(data.read(data.scan(), "test", 0, 3))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
    assert found[1] == Failure(
        *("a_1", "test", 1, "read"),
        "40,000 × 40,000 = 1,600,000,000 pixels are more than data.max_pixels=100000000; "
        "raise it if the memory is there",
    )


def test_the_limit_of_pixels_is_an_option(tmp_path: Path, write_hdf5) -> None:
    path = write_hdf5(tmp_path / "a.h5", {"images": UINT8_NHW})
    enough, less = source(path, max_pixels=30), source(path, max_pixels=29)
    assert all(isinstance(r, Sample) for r in enough.read(enough.scan(), "test", 0, 10))
    assert all(isinstance(r, Failure) for r in less.read(less.scan(), "test", 0, 10))


def test_a_record_that_is_no_number_is_a_failure_and_harms_no_other(
    tmp_path: Path, write_hdf5
) -> None:
    images = RNG.random((5, 6, 5)).astype(np.float64)
    images[1, 2, 3], images[3, 0, 0], images[4, 0, 0] = np.nan, -np.inf, 1e300
    data = source(write_hdf5(tmp_path / "a.h5", {"images": images}))
    found = list(data.read(data.scan(), "test", 0, 5))
    assert [isinstance(record, Failure) for record in found] == [False, True, False, True, True]
    assert found[1] == Failure(
        "a_1", "test", 1, "read", "NaN or Inf among the pixels, or beyond float32"
    )


@pytest.mark.parametrize(("chunk_rows", "lost"), [(1, {3}), (4, {0, 1, 2, 3})])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_broken_chunk_fails_its_records_alone(
    tmp_path: Path, write_hdf5, chunk_rows: int, lost: set[int], shuffle: bool
) -> None:
    path = write_hdf5(
        tmp_path / "a.h5", {"images": UINT8_NHW}, chunk_rows=chunk_rows, shuffle=shuffle
    )
    data = source(path)
    catalog = data.scan()
    with h5py.File(path) as file:
        chunk = file["images"].id.get_chunk_info(min(lost) // chunk_rows if chunk_rows > 1 else 3)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * chunk.size)
    found = list(data.read(catalog, "test", 0, 10))
    assert {record.row for record in found if isinstance(record, Failure)} == lost
    good = [record for record in found if isinstance(record, Sample)]
    assert all(np.array_equal(s.image_CHW[0], UINT8_NHW[s.row]) for s in good)


def test_chunks_that_were_never_written_are_filled(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        images = file.create_dataset(
            "images", (6, 6, 5), "u1", chunks=(2, 6, 5), compression="gzip", fillvalue=9
        )
        images[2:4] = 1
    found = pixels(read_all(source(tmp_path / "a.h5")))
    assert found[:, 0, 0, 0].tolist() == [9, 9, 1, 1, 9, 9]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("scans_train_01", "train"),
        ("my-val", "val"),
        ("training", "train"),
        ("Validation_2", "val"),
        ("trainings", "test"),
        ("train_of_the_test", "test"),
        ("latest", "test"),
    ],
)
def test_a_file_names_its_split_by_a_word(tmp_path: Path, write_hdf5, name, split) -> None:
    path = write_hdf5(tmp_path / f"{name}.h5", {"images": UINT8_NHW[:2]})
    assert list(source(path).scan().splits) == [split]
