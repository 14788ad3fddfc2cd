"""Files of many kinds, written by the libraries that write them, are told by their content."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import nibabel as nib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from artifactgen.filetypes import describe_file

IMAGE = np.zeros((8, 8, 3), np.uint8)


def encoded(ending: str) -> bytes:
    return bytes(cv2.imencode(ending, IMAGE)[1])


def tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("a.png"), io.BytesIO())


def packed_tar(path: Path) -> None:
    tar(path)
    path.write_bytes(gzip.compress(path.read_bytes()))


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", encoded(".png"))


def npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, images=IMAGE)


def npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, IMAGE)


def nifti(path: Path) -> None:
    path.write_bytes(nib.Nifti1Image(IMAGE, np.eye(4)).to_bytes())


def packed_nifti(path: Path) -> None:
    path.write_bytes(gzip.compress(nib.Nifti1Image(IMAGE, np.eye(4)).to_bytes()))


def hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["images"] = IMAGE


def cut_zip(path: Path) -> None:
    zipped(path)
    path.write_bytes(path.read_bytes()[:40])


def content(raw: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(raw)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
FILES = {
    "a PNG image": content(encoded(".png")),
    "a JPEG image": content(encoded(".jpg")),
    "a TIFF image": content(encoded(".tiff")),
    "a Parquet table": lambda path: pq.write_table(pa.table({"a": [1]}), path),
    "a tar archive": tar,
    "a tar archive, packed by gzip": packed_tar,
    "a zip archive of a.png": zipped,
    "a zip archive that is cut short": cut_zip,
    "NumPy arrays (.npz)": npz,
    "a NumPy array (.npy)": npy,
    "a NIfTI volume": nifti,
    "a NIfTI volume, packed by gzip": packed_nifti,
    "a DICOM file": content(bytes(128) + b"DICM" + bytes(60)),
    "an HDF5 file": hdf5,
    "a file of torch.save": lambda path: torch.save({"a": torch.zeros(3)}, path),
    "a table in text (CSV)": content(b"record_id,path\na,a.png\nb,b.png\n"),
    "a text file": content("Größe und so weiter\n".encode() * 200),
    "a web page, such as a server sends in place of a file": content(
        b"\n<?xml version='1.0'?><Error/>"
    ),
    "a Git LFS pointer (fetch the file: git lfs pull)": content(POINTER),
    "empty": content(b""),
    "packed by gzip": content(gzip.compress(bytes(range(256)) * 9)),
    "packed by bzip2": content(bz2.compress(b"a")),
    "packed by xz": content(lzma.compress(b"a")),
    "a PDF": content(b"%PDF-1.7\n%\xe2\xe3\n"),
    "a program": content(b"\x7fELF\x02\x01\x01\0"),
    None: content(bytes(range(256)) * 9),
}


@pytest.mark.parametrize(("what", "write"), FILES.items(), ids=map(str, FILES))
def test_a_file_is_told_by_its_content(
    tmp_path: Path, what: str | None, write: Callable[[Path], object]
) -> None:
    path = tmp_path / "anything.h5"
    write(path)
    assert describe_file(path) == what


def test_a_character_that_the_first_bytes_cut_is_still_text(tmp_path: Path) -> None:
    for shift in range(4):
        (tmp_path / "a").write_bytes(b"x" * shift + "🫀".encode() * 1000)
        assert describe_file(tmp_path / "a") == "a text file"


@pytest.mark.parametrize(
    ("name", "what"),
    [("a.YML", "YAML"), ("a.py", "Python"), ("a.json", "JSON"), ("a.csv", "CSV")],
)
def test_the_ending_tells_which_text(tmp_path: Path, name: str, what: str) -> None:
    (tmp_path / name).write_text("a, b\nc, d\n", "utf-8")
    assert describe_file(tmp_path / name) == f"a text file ({what})"
    (tmp_path / name).write_bytes(encoded(".png"))
    assert describe_file(tmp_path / name) == "a PNG image"
