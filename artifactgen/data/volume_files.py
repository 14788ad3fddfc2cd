"""What a file of a record is, by its content, and volumes opened."""

from __future__ import annotations

import stat
import sys
import threading
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Literal

from artifactgen.data.content import file_version
from artifactgen.data.dicom import HEAD_BYTES, is_dicom
from artifactgen.data.dicom_series import DicomVolume, open_dicom
from artifactgen.data.nifti_volume import NiftiVolume, open_nifti
from artifactgen.data.npy import SIGNATURE, NpyVolume, as_volume, map_npy, read_npy_header
from artifactgen.errors import RecordError, printable
from artifactgen.filetypes import describe_file

Kind = Literal["picture", "npy", "nifti", "dicom"]
AnyVolume = NiftiVolume | DicomVolume | NpyVolume
_HEAD_BYTES = 348
_NIFTI_SIZES = (348, 540)
"""Of the headers of NIfTI-1 and NIfTI-2, which begin with it."""
_GZIP = b"\x1f\x8b"
_KEPT_VOLUMES = 2
_turn = threading.Lock()


def kind_of_file(path: Path) -> Kind:
    """What a file is read as, by its first bytes; whatever is none of the others is a picture.

    Raises:
        RecordError: it is no regular file: a folder, or a pipe, which would be waited for.
        OSError: it cannot be read.
    """
    if "\0" in str(path):
        raise RecordError(f"{printable(str(path))}: no such file: no name has a NUL in it")
    if not stat.S_ISREG(path.stat().st_mode):
        raise RecordError(f"{path}: not a regular file")
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(SIGNATURE):
        return "npy"
    if is_dicom(head[:HEAD_BYTES]):
        return "dicom"
    sizes = {int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big")}
    is_nifti = head.startswith(_GZIP) or (len(head) >= 4 and sizes & {*_NIFTI_SIZES})
    return "nifti" if is_nifti else "picture"


def kind_of_volume(path: Path) -> Kind:
    """What a volume is, its header looked at.

    Raises:
        RecordError: it is no volume.
        OSError: it cannot be read.
    """
    kind = kind_of_file(path)
    if kind == "nifti":
        open_nifti(path, max_pixels=sys.maxsize, header_only=True)
    if kind == "picture":
        what = describe_file(path) or "nothing that is known"
        raise RecordError(f"{path}: no volume (NIfTI, DICOM, .npy), but {what}")
    return kind


def open_volume(
    kind: Kind,
    paths: Sequence[Path],
    *,
    n_frames: int | None = None,
    max_pixels: int,
    keep: bool = False,
    header_only: bool = False,
) -> AnyVolume:
    """Open the volume of a file, or of the files of a DICOM series.

    Args:
        kind: what the files are.
        paths: one, or those of a series; see `open_dicom`.
        n_frames: see `open_dicom`.
        max_pixels: see `data.max_pixels`.
        keep: whether further slices of the file will be asked for, by any thread.
        header_only: whether its pixels will not be.
    """
    if kind == "dicom":
        return open_dicom(paths, n_frames=n_frames, max_pixels=max_pixels)
    (path,) = paths
    if kind == "npy":
        return as_volume(map_npy(path, read_npy_header(path)))
    if not keep or header_only:
        return open_nifti(path, max_pixels=max_pixels, header_only=header_only)
    version = file_version(path)
    with _turn:  # else every thread would unpack the same file
        return _kept(path, version, max_pixels)


@lru_cache(_KEPT_VOLUMES)
def _kept(path: Path, version: tuple[int, ...], max_pixels: int) -> NiftiVolume:
    del version  # it only tells files of one name apart
    return open_nifti(path, max_pixels=max_pixels)
