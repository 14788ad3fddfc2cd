"""Tar shards, written by the library `webdataset`, against what it reads of them."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from braceexpand import braceexpand
from PIL import Image

from artifactgen.data.base import Catalog
from artifactgen.data.reading import read_range, scan_source
from artifactgen.data.webdataset import WebDataset
from artifactgen.data.webdataset.braces import expand_braces
from artifactgen.errors import ConfigError, DataError
from artifactgen.types import Failure, Framing, Sample

SQUASH = Framing(crop_mode="squash", interpolation="nearest")


def picture_file(seed: int, ending: str = "PNG", size: tuple[int, int] = (18, 16)) -> bytes:
    picture = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, ending)
    return buffer.getvalue()


def source(**options: Any) -> WebDataset:
    return WebDataset(image_size=(18, 16), framing=SQUASH, **options)


def write(path: Path, *samples: dict[str, Any]) -> Path:
    with webdataset.TarWriter(str(path)) as writer:
        for sample in samples:
            writer.write(sample)
    return path


def read_split(made: WebDataset, catalog: Catalog, split: str) -> list[Sample | Failure]:
    return read_range(made, catalog, split, 0, len(catalog.splits[split]))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning:")  # of webdataset
def test_records_are_those_that_webdataset_reads(tmp_path: Path) -> None:
    pattern = str(tmp_path / "train-%03d.tar")
    endings = ("jpg", "png", "webp")
    with webdataset.ShardWriter(pattern, maxcount=4, verbose=0) as writer:
        for i in range(11):
            ending = endings[i % 3]
            kind = "JPEG" if ending == "jpg" else ending.upper()
            sample = {"__key__": f"part{i % 2}/{i:05d}", "cls": (i * 7) % 5, "txt": "a text"}
            writer.write(sample | {ending: picture_file(i, kind)})
    shards = f"{tmp_path}/train-{{000..002}}.tar"
    made = source(path=shards)
    catalog = scan_source(made)
    assert list(catalog.splits) == ["train"]
    assert catalog.classes == ("0", "1", "2", "3", "4")
    assert catalog.highest_label == ("part0/00002", 4)
    theirs = webdataset.WebDataset(shards, shardshuffle=False).decode("pil")
    found = read_split(made, catalog, "train")
    for ours, expected in zip(found, theirs, strict=True):
        assert isinstance(ours, Sample), ours
        assert (ours.record_id, ours.label) == (expected["__key__"], expected["cls"])
        picture = next(expected[ending] for ending in endings if ending in expected)
        np.testing.assert_array_equal(ours.image_CHW.transpose(1, 2, 0), np.asarray(picture))


def test_one_glob_for_each_split_and_names_as_labels(tmp_path: Path) -> None:
    for split in ("a", "b"):
        rows = [
            {"__key__": f"{split}{i}", "png": picture_file(i), "json": {"label": name, "x": 1}}
            for i, name in enumerate(["eel", "cat", "dog", None])
        ]
        write(tmp_path / f"{split}.tar", *rows)
    made = source(train=f"{tmp_path}/a.tar", test=f"{tmp_path}/b*.tar")
    catalog = scan_source(made)
    assert {split: len(index) for split, index in catalog.splits.items()} == {"train": 4, "test": 4}
    assert catalog.classes == ("cat", "dog", "eel")
    labels = [item.label for item in read_split(made, catalog, "test") if isinstance(item, Sample)]
    assert labels == [2, 0, 1, -1]
    given = source(train=f"{tmp_path}/a.tar", classes=("eel", "dog", "cat"))
    labels = [s.label for s in read_split(given, scan_source(given), "train")]  # type: ignore[union-attr]
    assert labels == [0, 2, 1, -1]


def test_the_place_of_the_shards_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    write(tmp_path / "here" / "val.tar", {"__key__": "a", "png": picture_file(0)})
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    first, second = (source(path=f"{tmp_path}/{place}/*.tar").scan() for place in ("here", "there"))
    assert (first.identity, first.content) == (second.identity, second.content)


def test_a_shard_with_a_mended_picture_holds_the_same_records(tmp_path: Path) -> None:
    found = []
    for picture in (b"broken", picture_file(0)):
        samples = {"__key__": "a", "png": picture}, {"__key__": "b", "png": picture_file(1)}
        found.append(source(path=str(write(tmp_path / "a.tar", *samples))).scan())
    broken, mended = found
    assert broken.identity == mended.identity
    assert broken.content != mended.content


def test_a_shard_that_comes_after_the_scan_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path / "b.tar", {"__key__": "b", "png": picture_file(1)})
    made = source(path=f"{tmp_path}/*.tar")
    catalog = scan_source(made)
    before = read_split(made, catalog, "test")
    write(tmp_path / "a.tar", {"__key__": "a", "png": picture_file(2)})
    (after,) = read_split(made, catalog, "test")
    assert isinstance(after, Sample)
    assert isinstance(before[0], Sample)
    np.testing.assert_array_equal(after.image_CHW, before[0].image_CHW)


def test_a_record_without_a_picture_is_a_failure(tmp_path: Path) -> None:
    write(
        tmp_path / "a.tar",
        {"__key__": "a", "cls": 1, "png": picture_file(0)},
        {"__key__": "b", "cls": 1},
        {"__key__": "c", "cls": 0, "png": b"no picture"},
    )
    made = source(path=str(tmp_path / "a.tar"))
    good, absent, broken = read_split(made, scan_source(made), "test")
    assert isinstance(good, Sample)
    assert isinstance(absent, Failure)
    assert (absent.record_id, absent.reason) == ("b", "no picture beside its other members")
    assert isinstance(broken, Failure)


def test_one_of_several_pictures_is_named(tmp_path: Path) -> None:
    sample = {"__key__": "a", "seg.png": picture_file(0), "jpg": picture_file(1, "JPEG")}
    write(tmp_path / "a.tar", sample | {"png": picture_file(2), "index": 3})
    shards = str(tmp_path / "a.tar")
    with pytest.raises(
        DataError, match=r"a has several pictures, \.jpg and \.png\. Set data\.imag"
    ):
        source(path=shards).scan()
    made = source(path=shards, image_key="seg.png", label_key="index")
    catalog = scan_source(made)
    (found,) = read_split(made, catalog, "test")
    assert isinstance(found, Sample)
    assert found.label == 3
    stored = np.asarray(Image.open(io.BytesIO(picture_file(0))))
    np.testing.assert_array_equal(found.image_CHW.transpose(1, 2, 0), stored)


def test_keys_that_occur_twice_are_refused(tmp_path: Path) -> None:
    rows = [{"__key__": f"r{i}", "png": picture_file(i)} for i in range(8)]
    for name in ("train-0", "train-1"):
        write(tmp_path / f"{name}.tar", *rows)
    with pytest.raises(DataError, match=r"key: r0, r1, r2, r3, r4\."):
        scan_source(source(path=f"{tmp_path}/*.tar"))


def test_a_shard_that_is_cut_short_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", {"__key__": "a", "png": picture_file(0)})
    path = write(tmp_path / "b.tar", {"__key__": "b", "png": picture_file(0)})
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(
        DataError, match=r"b\.tar is cut short: 900 bytes, and a file in it goes on"
    ):
        scan_source(source(path=f"{tmp_path}/*.tar"))


def test_packed_shards_are_refused_with_the_line_that_unpacks_them(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz"):
        pass
    with pytest.raises(DataError, match=r"packed by gzip: ranges .* gunzip .*a\.tar\.gz"):
        scan_source(source(path=f"{tmp_path}/*.tar.gz"))


def test_links_to_pictures_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("a.png")
        info.type, info.linkname = tarfile.LNKTYPE, "b.png"
        archive.addfile(info)
    with pytest.raises(DataError, match=r"a\.png is a link\. Pack it anew"):
        scan_source(source(path=f"{tmp_path}/*.tar"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([b"1", b"cat"], "The label of r1 is a name, and that of r0 a number"),
        ([b"1000000", b"0"], "The label of r0 is 1000000"),
    ],
)
def test_labels_that_are_none_are_refused(
    tmp_path: Path, labels: list[bytes], message: str
) -> None:
    rows = [
        {"__key__": f"r{i}", "png": picture_file(i), "cls": label} for i, label in enumerate(labels)
    ]
    write(tmp_path / "a.tar", *rows)
    with pytest.raises(DataError, match=message):
        scan_source(source(path=f"{tmp_path}/*.tar"))


def test_json_that_is_none_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.tar", {"__key__": "a", "png": picture_file(0), "json": b"{"})
    with pytest.raises(DataError, match=r"a\.tar: a\.json cannot be read as JSON"):
        scan_source(source(path=f"{tmp_path}/*.tar"))


def test_shards_are_given_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.train, data\.val, data\.test\. Neither is set"):
        source().scan()
    with pytest.raises(ConfigError, match="Both are set"):
        source(path="a", val="b").scan()
    write(tmp_path / "a-0.tar", {"__key__": "a", "png": picture_file(0)})
    with pytest.raises(DataError, match=r"data\.path=.*a-1\.tar matches no file"):
        scan_source(source(path=f"{tmp_path}/a-{{0..1}}.tar"))


@pytest.mark.parametrize(
    "pattern",
    ["a", "a-{000..002}.tar", "{a,b}-{08..11}", "x{3..1}y", "{a,b{1..2}}", "{000..1001}{0..1}"],
)
def test_braces_are_expanded_as_webdataset_does(pattern: str) -> None:
    assert expand_braces(pattern) == list(braceexpand(pattern))


def test_a_brace_that_is_not_closed_is_told() -> None:
    with pytest.raises(DataError, match="a brace is not closed"):
        expand_braces("a-{000..009.tar")
    with pytest.raises(DataError, match="more than 1,000,000 files"):
        expand_braces("{0..999999}{0..9}")


def test_a_label_in_json_may_stand_alone(tmp_path: Path) -> None:
    sample = {"__key__": "a", "png": picture_file(0), "json": json.dumps(2).encode()}
    write(tmp_path / "a.tar", sample)
    made = source(path=str(tmp_path / "a.tar"))
    assert [s.label for s in read_split(made, scan_source(made), "test")] == [2]  # type: ignore[union-attr]
