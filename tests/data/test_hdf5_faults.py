from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest

from artifactgen.data.hdf5 import Hdf5
from artifactgen.errors import DataError

IMAGES = np.zeros((4, 6, 5), np.uint8)


def scan(path: Path | str, **options: Any) -> None:
    Hdf5(path=str(path), **options).scan()


@pytest.fixture
def path(tmp_path: Path, write_hdf5) -> Path:
    return write_hdf5(tmp_path / "a.h5", {"images": IMAGES, "labels": [0, 1, 0, 1]})


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-50])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("<html>not found</html>")


def folder(path: Path) -> None:
    path.unlink()
    (path / "sub").mkdir(parents=True)


def writer_was_killed(path: Path) -> None:
    path.unlink()
    code = """
import h5py, numpy, os, sys
file = h5py.File(sys.argv[1], "w", libver="latest")
file["images"] = numpy.zeros((4, 6, 5), "u1")
file.flush()
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (cut, r"a\.h5 cannot be read as HDF5: .*cut short or damaged"),
        (empty, r"a\.h5 is empty; data=hdf5 reads HDF5\.$"),
        (text, r"a\.h5 is a web page.*; data=hdf5 reads HDF5\.$"),
        (writer_was_killed, r"(?s)marked as open for writing.*was killed.*h5clear -s .*a\.h5"),
    ],
)
def test_a_file_that_is_not_whole_hdf5_is_refused(
    path: Path, damage: Callable[[Path], None], reason: str
) -> None:
    damage(path)
    with pytest.raises(DataError, match=reason):
        scan(path)


WRITER = """
import h5py, numpy, sys
file = h5py.File(sys.argv[1], "w", libver=sys.argv[2])
file["images"] = numpy.zeros((4, 6, 5), "u1")
file.flush()
print("ready", flush=True)
sys.stdin.read()
file.close()
"""


@contextmanager
def writing(path: Path, *, libver: str, **environment: str) -> Iterator[None]:
    """Another program has a file open for writing."""
    command = [sys.executable, "-c", WRITER, str(path), libver]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdin is not None
        assert writer.stdout.readline() == b"ready\n"
        yield
        writer.stdin.close()
        assert writer.wait(60) == 0


@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_a_file_that_is_being_written_is_refused(tmp_path: Path, libver: str) -> None:
    path = tmp_path / "a.h5"
    with (
        writing(path, libver=libver),
        pytest.raises(DataError, match="open for writing in another"),
    ):
        scan(path)
    scan(path)


def test_a_writer_without_locks_is_known_by_its_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    refused = pytest.raises(DataError, match=r"marked as open for writing.*h5clear")
    with writing(path, libver="latest", HDF5_USE_FILE_LOCKING="FALSE"), refused:
        scan(path)
    scan(path)


def test_a_scan_leaves_no_lock_behind(path: Path) -> None:
    scan(path)
    with h5py.File(path, "a", locking=True) as file:
        file["notes"] = [1]


def test_an_image_is_told_from_hdf5(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    with pytest.raises(DataError, match=r"a\.h5 is a PNG image; data=hdf5 reads HDF5\. No choice"):
        scan(path)
    nib.save(nib.Nifti1Image(IMAGES, np.eye(4)), path.with_suffix(".nii.gz"))
    with pytest.raises(DataError, match=r"a NIfTI volume, packed by gzip; .*data=cmr_acdc"):
        scan(path.with_suffix(".nii.gz"))


def test_a_folder_is_refused_with_the_glob_to_use(path: Path) -> None:
    folder(path)
    with pytest.raises(DataError, match=r"is a folder.*a\.h5/\*\.h5"):
        scan(path)


@pytest.mark.parametrize("pattern", ["none.h5", "none*.h5"])
def test_a_glob_that_matches_nothing_is_named(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(DataError, match=pattern.replace("*", r"\*")):
        scan(tmp_path / pattern)


def test_a_name_with_glob_characters_is_a_file(path: Path) -> None:
    scan(path.rename(path.with_name("a[1].h5")))


def test_a_missing_key_lists_the_keys_there_are(path: Path) -> None:
    with pytest.raises(DataError, match=r"no data set pixels.*images \(4, 6, 5\) uint8, labels"):
        scan(path, images_key="pixels")


@pytest.mark.parametrize("role", ["labels", "record_ids", "split"])
def test_a_key_that_was_asked_for_must_exist(path: Path, role: str) -> None:
    with pytest.raises(DataError, match=rf"no data set typo.*images.*data\.{role}_key"):
        scan(path, **{f"{role}_key": "typo"})


def with_images(*shape: int, dtype: str = "u1") -> Any:
    return {"images": np.zeros(shape, dtype)}


OBJECTS = np.empty(4, h5py.vlen_dtype(np.uint8))
for row in range(4):
    OBJECTS[row] = np.zeros(row, np.uint8)
BAD = {
    "rank 2": (with_images(4, 6), {}, "expected"),
    "rank 5": (with_images(4, 2, 3, 6, 5), {}, "expected"),
    "scalar": ({"images": np.uint8(3)}, {}, "expected"),
    "no pixels": (with_images(4, 0, 5), {}, "expected"),
    "unclear layout": (with_images(4, 20, 20, 20), {}, r"set data\.layout"),
    "layout of another rank": (with_images(4, 6, 5), {"layout": "CHW"}, r"not data\.layout=CHW"),
    "objects": ({"images": OBJECTS}, {}, "not numbers"),
    "complex": (with_images(4, 6, 5, dtype="c8"), {}, "not numbers"),
    "a group": ({"images/x": IMAGES}, {}, "no data set"),
    "both": ({"images": IMAGES, "train/images": IMAGES}, {}, "both at the top and in train"),
    "fewer labels": ({"images": IMAGES, "labels": [1, 2]}, {}, r"\(2,\); /images has 4"),
    "labels of rank 2": ({"images": IMAGES, "labels": np.eye(4, dtype=int)}, {}, r"\(4, 4\)"),
    "floating labels": ({"images": IMAGES, "labels": np.zeros(4)}, {}, "expected integers"),
    "label beyond the classes": (
        {"images": IMAGES, "labels": [0, 1, 2, 3]},
        {"classes": ("a", "b")},
        r"up to 3, but there are 2 classes: a, b\. The record is a_3",
    ),
    "a label that nobody means": (
        {"images": IMAGES, "labels": [0, 1, 2**40, 3]},
        {},
        r"a\.h5: /labels: the label of a_2 is 1099511627776; labels are indices",
    ),
    "a label that wraps around": (
        {"images": IMAGES, "labels": np.array([0, 2**63 + 5, 1, 2], np.uint64)},
        {},
        "label of a_1 is 9223372036854775813",
    ),
    "an id of ten megabytes": (
        {"images": IMAGES, "record_ids": ["a", "b" * 10_000_000, "c", "d"]},
        {},
        r"the id in row 1, b{40}…, has 10,000,000 characters; at most 1,024",
    ),
    "ids of fixed length that fill the memory": (
        {"images": IMAGES, "record_ids": np.array([b"a", b"b" * 10_000_000, b"c", b"d"])},
        {},
        r"the id in row 1, b{40}…, has 10,000,000 characters",
    ),
    "fewer ids": ({"images": IMAGES, "record_ids": [b"a"]}, {}, "has 4 images"),
    "ids of objects": ({"images": IMAGES, "record_ids": OBJECTS}, {}, "expected strings"),
    "numbered splits": ({"images": IMAGES, "split": [0, 0, 1, 1]}, {}, "expected strings"),
    "splits twice": (
        {"train/images": IMAGES, "train/split": [b"a"] * 4},
        {},
        "splits are groups",
    ),
    "duplicate ids": (
        {"images": np.zeros((14, 2, 2), "u1"), "record_ids": [f"r{i // 2}" for i in range(14)]},
        {},
        "7 record ids occur twice: r0, r1, r2, r3, r4, …",
    ),
    "duplicates across splits": (
        {"images": IMAGES, "record_ids": list("abca"), "split": ["x", "x", "x", "y"]},
        {},
        "occur twice: a",
    ),
    "duplicates across groups": (
        {
            "train/images": IMAGES,
            "train/record_ids": list("abcd"),
            "val/images": IMAGES,
            "val/record_ids": list("efgd"),
        },
        {},
        "occur twice: d",
    ),
    "the same accent, coded in two ways": (
        {"images": IMAGES, "record_ids": ["\u00e9", "e\u0301", "a", "b"]},
        {},
        "1 record ids occur twice",
    ),
}


@pytest.mark.parametrize(("datasets", "options", "reason"), BAD.values(), ids=BAD)
def test_data_sets_that_do_not_fit_are_refused(
    tmp_path: Path, write_hdf5, datasets: Any, options: Any, reason: str
) -> None:
    path = write_hdf5(tmp_path / "a.h5", datasets)
    with pytest.raises(DataError, match=reason) as caught:
        scan(path, **options)
    assert "Traceback" not in str(caught.value)


MIXED = {
    "channels": (with_images(4, 6, 5, 3), "channels"),
    "type": (with_images(4, 6, 5, dtype="f4"), "float32"),
    "ids": ({"images": IMAGES, "record_ids": list("wxyz")}, "only one has record ids"),
}


@pytest.mark.parametrize(("other", "reason"), MIXED.values(), ids=MIXED)
def test_files_that_do_not_go_together_are_refused(
    path: Path, write_hdf5, other: Any, reason: str
) -> None:
    write_hdf5(path.with_name("b.h5"), other)
    with pytest.raises(DataError, match=reason):
        scan(path.with_name("*.h5"))


def test_files_that_name_different_classes_are_refused(path: Path, write_hdf5) -> None:
    other = write_hdf5(path.with_name("b.h5"), {"images": IMAGES})
    for name, classes in ((path, ["x", "y"]), (other, ["y", "x"])):
        with h5py.File(name, "a") as file:
            file.attrs["classes"] = classes
    with pytest.raises(DataError, match="different classes"):
        scan(path.with_name("*.h5"))
    scan(path.with_name("*.h5"), classes=("x", "y"))


def test_ids_repeated_across_files_are_refused(tmp_path: Path, write_hdf5) -> None:
    for name in "ab":
        write_hdf5(tmp_path / f"{name}.h5", {"images": IMAGES, "record_ids": list("wxyz")})
    with pytest.raises(DataError, match="4 record ids occur twice: w, x, y, z"):
        scan(tmp_path / "*.h5")


def test_two_files_of_one_name_need_ids(tmp_path: Path, write_hdf5) -> None:
    for name in "ab":
        write_hdf5(tmp_path / name / "scans.h5", {"images": IMAGES})
    with pytest.raises(DataError, match="two files are called scans"):
        scan(tmp_path / "*/*.h5")


@pytest.mark.parametrize("kind", ["external", "soft", "external group", "virtual", "raw"])
def test_what_lies_in_other_files_is_not_read(tmp_path: Path, path: Path, kind: str) -> None:
    linked = tmp_path / "linked.h5"
    with h5py.File(linked, "w") as file:
        if kind == "external":
            file["images"] = h5py.ExternalLink(path, "/images")
        elif kind == "external group":
            file["train"] = h5py.ExternalLink(path, "/")
        elif kind == "soft":
            file["images"] = h5py.SoftLink("/elsewhere")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((4, 6, 5), "u1")
            layout[:] = h5py.VirtualSource(path, "images", (4, 6, 5))
            file.create_virtual_dataset("images", layout)
        else:
            raw = tmp_path / "secret.raw"
            raw.write_bytes(bytes(4 * 6 * 5))
            file.create_dataset("images", (4, 6, 5), "u1", external=[(raw, 0, 120)])
    with pytest.raises(DataError, match=r"only (what )?the file itself"):
        scan(linked)


def test_an_unknown_filter_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((1, 6, 5))
        plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple((4, 6, 5))
        h5py.h5d.create(file.id, b"images", h5py.h5t.NATIVE_UINT8, space, plist)
    with pytest.raises(DataError, match=r"filter.*pip install hdf5plugin"):
        scan(tmp_path / "a.h5")
