"""Folders of pictures: splits, classes, ids, and whatever else lies in a folder."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image
from timm.data import create_transform, resolve_data_config
from torchvision.datasets import ImageFolder as Reference

from artifactgen.data.image_folder import ImageFolder
from artifactgen.data.reading import read_range, scan_source
from artifactgen.errors import DataError
from artifactgen.models.timm import Timm
from artifactgen.types import Failure, Framing


def save(path: Path, *, seed: int = 0, size=(30, 40), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def source(root: Path, **options) -> ImageFolder:
    made = {"image_size": (24, 24), "framing": Framing(), **options}
    return ImageFolder(root=str(root), **made)


def ids(found, split: str) -> list[str]:
    return list(found.splits[split].record_ids(0, len(found.splits[split])))


def test_splits_classes_and_ids(tmp_path):
    for place in ("train/cat/a.png", "train/cat/deep/b.JPG", "train/dog/c.png", "valid/eel/d.png"):
        save(tmp_path / place)
    found = source(tmp_path).scan()
    assert found.classes == ("cat", "dog", "eel")
    assert list(found.splits) == ["train", "val"]
    assert ids(found, "train") == ["cat/a", "cat/deep/b", "dog/c"]
    assert ids(found, "val") == ["eel/d"]
    assert [row["label"] for row in found.splits["train"].read(0, 3)] == [0, 0, 1]
    assert (found.channels, found.dtype) == (3, "uint8")


def test_without_a_split_all_is_test(tmp_path):
    save(tmp_path / "cat" / "a.png")
    save(tmp_path / "dog" / "b.png")
    found = source(tmp_path).scan()
    assert {split: ids(found, split) for split in found.splits} == {"test": ["cat/a", "dog/b"]}
    assert found.classes == ("cat", "dog")


def test_pictures_without_a_class_have_no_label(tmp_path):
    save(tmp_path / "a.png")
    found = source(tmp_path).scan()
    assert (found.classes, ids(found, "test")) == ((), ["a"])
    assert found.splits["test"].read(0, 1)[0]["label"] == -1


def test_ids_that_would_occur_twice(tmp_path):
    for place in ("train/cat/1.png", "train/cat/1.jpg", "val/cat/1.png", "val/cat/2.png"):
        save(tmp_path / place)
    found = source(tmp_path).scan()
    assert ids(found, "train") == ["cat/1.jpg", "cat/1.png"]
    assert ids(found, "val") == ["cat/1", "cat/2"]
    save(tmp_path / "test/cat/2.jpg")
    found = source(tmp_path).scan()
    assert ids(found, "train") == ["train/cat/1.jpg", "train/cat/1.png"]
    assert ids(found, "val") == ["val/cat/1", "val/cat/2"]
    assert ids(found, "test") == ["test/cat/2"]


def test_a_folder_whose_name_lies_between_two_files_does_not_part_them(tmp_path):
    for place in ("cat/1.jpg", "cat/1.k/0.png", "cat/1.png"):
        save(tmp_path / place)
    found = source(tmp_path).scan()
    assert ids(found, "test") == ["cat/1.jpg", "cat/1.png", "cat/1.k/0"]
    paths = [row["path"] for row in found.splits["test"].read(0, 3)]
    assert [str(tmp_path / path) for path in paths] == [
        path for path, _ in Reference(tmp_path).imgs
    ]


def test_equal_to_torchvision_and_timm(tmp_path):
    modes = ["RGB", "L", "P", "RGB", "RGBA", "1"]
    for seed, mode in enumerate(modes):
        ending = "png" if mode != "RGB" else "jpg"
        place = tmp_path / "test" / "ab"[seed % 2] / f"{seed}.{ending}"
        save(place, seed=seed, size=(300 + seed, 360), mode=mode)
    family = Timm(backbone="resnet50.a1_in1k")
    made = source(tmp_path, image_size=family.input_size(), framing=family.framing())
    catalog = scan_source(made)
    records = read_range(made, catalog, "test", 0, len(modes))
    config = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(family.backbone).to_dict())
    expected = Reference(tmp_path / "test", create_transform(**config, normalize=False))
    assert catalog.classes == tuple(expected.classes)
    for record, (image, label) in zip(records, expected, strict=True):
        assert record.label == label
        assert (record.image_CHW == image.numpy()).all(), record.record_id
        assert record.stored_size[1] == 360


def test_grey_as_asked_for(tmp_path):
    save(tmp_path / "a.png")
    made = source(tmp_path, mode="L")
    catalog = scan_source(made)
    (record,) = read_range(made, catalog, "test", 0, 1)
    assert catalog.channels == len(record.image_CHW) == 1


def test_classes_in_the_order_that_is_given(tmp_path):
    save(tmp_path / "cat" / "a.png")
    save(tmp_path / "dog" / "b.png")
    found = source(tmp_path, classes=("dog", "cat", "eel")).scan()
    assert [row["label"] for row in found.splits["test"].read(0, 2)] == [1, 0]
    assert found.classes == ("dog", "cat", "eel")
    with pytest.raises(DataError, match=r"cat: a folder of a class that data\.classes does not"):
        source(tmp_path, classes=("dog", "car")).scan()


def test_one_type_of_pixels(tmp_path):
    deep = np.arange(600, dtype=np.uint16).reshape(20, 30) * 100
    Image.fromarray(deep).save(tmp_path / "a.png")
    Image.fromarray(deep // 2).save(tmp_path / "b.png")
    save(tmp_path / "c.png")
    made = source(tmp_path, image_size=(20, 20))
    catalog = scan_source(made)
    assert (catalog.channels, catalog.dtype) == (1, "uint16")
    first, second, third = read_range(made, catalog, "test", 0, 3)
    assert (first.image_CHW[0] == deep[:, 5:25]).all()
    assert (second.image_CHW[0] == deep[:, 5:25] // 2).all()
    assert isinstance(third, Failure)
    assert third.reason.startswith("its pixels are uint8, and those of the data set uint16")


def test_broken_pictures_are_failures_and_the_first_good_one_tells_the_type(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    (tmp_path / "b.png").write_text("<html>")
    good = save(tmp_path / "c.png")
    (tmp_path / "d.jpg").write_bytes(save(tmp_path / "whole.jpg").read_bytes()[:500])
    save(tmp_path / "e.png").chmod(0o000)
    made = source(tmp_path)
    catalog = scan_source(made)
    good.unlink()
    save(good)
    found = read_range(made, catalog, "test", 0, 6)
    failures = {record.record_id: record.reason for record in found if isinstance(record, Failure)}
    assert failures.keys() >= {"a", "b", "d"}
    assert failures["a"] == "empty (0 bytes)"
    assert "no picture that could be read" in failures["b"]
    assert "truncated" in failures["d"].lower()


def test_a_picture_that_is_gone_is_one_failure(tmp_path):
    first = save(tmp_path / "a.png")
    save(tmp_path / "b.png")
    made = source(tmp_path)
    catalog = scan_source(made)
    first.unlink()
    gone, there = read_range(made, catalog, "test", 0, 2)
    assert isinstance(gone, Failure)
    assert "No such file" in gone.reason
    assert not isinstance(there, Failure)


def test_what_is_no_picture_file_is_left_out_and_nothing_waits(tmp_path):
    save(tmp_path / "cat" / "a.png")
    (tmp_path / "cat" / "folder.png").mkdir()
    save(tmp_path / "cat" / "folder.png" / "inside.png")
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    (tmp_path / "cat" / "notes.txt").write_text("x")
    (tmp_path / "cat" / "._a.png").write_bytes(b"x")
    (tmp_path / ".hidden").mkdir()
    save(tmp_path / ".hidden" / "b.png")
    (tmp_path / "cat" / "loop").symlink_to(tmp_path / "cat")
    (tmp_path / "cat" / "up").symlink_to(tmp_path)
    (tmp_path / "cat" / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "cat" / "linked.png").symlink_to(tmp_path / "cat" / "a.png")
    found: list[list[str]] = []
    thread = threading.Thread(
        target=lambda: found.append(ids(source(tmp_path).scan(), "test")), daemon=True
    )
    thread.start()
    thread.join(20)
    assert found == [["cat/a", "cat/linked", "cat/folder.png/inside"]]


@pytest.fixture
def nobody() -> Iterator[Path]:
    """A folder that others may enter, in a process without root's right to read everything."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    mine = os.geteuid()
    yield folder
    os.seteuid(mine)
    shutil.rmtree(folder)


def test_a_folder_that_may_not_be_read_is_named(nobody):
    save(nobody / "cat" / "a.png")
    save(nobody / "dog" / "b.png").parent.chmod(0o000)
    if os.geteuid() == 0:
        os.seteuid(65534)
    with pytest.raises(DataError, match=r"dog: cannot be listed \(Permission denied\)"):
        source(nobody).scan()


def test_a_picture_that_may_not_be_read_is_one_failure(nobody):
    save(nobody / "a.png").chmod(0o000)
    save(nobody / "b.png")
    if os.geteuid() == 0:
        os.seteuid(65534)
    made = source(nobody)
    closed, there = read_range(made, scan_source(made), "test", 0, 2)
    assert isinstance(closed, Failure)
    assert "Permission denied" in closed.reason
    assert not isinstance(there, Failure)


def test_names_that_are_no_utf8(tmp_path):
    save(tmp_path / "a.png").rename(tmp_path / os.fsdecode(b"b\xff.png"))
    made = source(tmp_path)
    catalog = scan_source(made)
    (record,) = read_range(made, catalog, "test", 0, 1)
    assert record.record_id == "b\udcff"
    split = os.fsdecode(b"s\xff")
    for place in ("train/a.png", f"{split}/{os.fsdecode(bytes([0xFE]))}/b.png"):
        save(tmp_path / "splits" / place)
    assert list(scan_source(source(tmp_path / "splits")).splits) == [split, "train"]


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        pytest.param(lambda root: None, "no such folder", id="nothing"),
        pytest.param(lambda root: root.mkdir(), "There is no picture", id="empty"),
        pytest.param(lambda root: (root / "train").mkdir(parents=True), "no picture", id="split"),
        pytest.param(
            lambda root: (save(root / "val/a.png"), save(root / "valid/b.png")),
            r"val/ and valid/ are both the split val\. Remove one",
            id="two names",
        ),
        pytest.param(
            lambda root: (root.mkdir(), (root / "a.png").write_bytes(b"x")),
            r"None of the first pictures can be read:\n.*a\.png: no picture",
            id="no picture is one",
        ),
    ],
)
def test_what_is_no_data_set_is_said(tmp_path, prepare, message):
    prepare(tmp_path / "set")
    with pytest.raises(DataError, match=message):
        scan_source(source(tmp_path / "set"))
