from __future__ import annotations

import errno
import gzip
import os
import resource
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from artifactgen.data.nifti import read_frames, read_nifti
from artifactgen.errors import RecordError

VOXELS_XYZT = np.arange(5 * 6 * 3 * 4, dtype=np.int16).reshape(5, 6, 3, 4)
DIM, DATATYPE, VOX_OFFSET, SCL_SLOPE, SROW_X, MAGIC = 40, 70, 108, 112, 280, 344


@pytest.fixture
def cine(tmp_path: Path) -> Path:
    path = tmp_path / "a_4d.nii.gz"
    nib.save(nib.Nifti1Image(VOXELS_XYZT, np.eye(4)), path)
    return path


def patch(path: Path, offset: int, layout: str, *values: Any) -> None:
    """Overwrite a field of the header in a gzip file, whose checksum stays right."""
    raw = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<" + layout, raw, offset, *values)
    path.write_bytes(gzip.compress(bytes(raw)))


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
@pytest.mark.parametrize("dtype", ["<i2", ">i2", "u1", "<i4", "<f4", ">f8", "<u2"])
def test_frames_have_rows_along_y_and_columns_along_x(
    tmp_path: Path, ending: str, dtype: str
) -> None:
    path = tmp_path / f"a{ending}"
    voxels = (VOXELS_XYZT % 200).astype(dtype)
    header = nib.Nifti1Header(endianness=dtype[0] if dtype[0] in "<>" else "<")
    header.set_data_dtype(voxels.dtype)
    nib.save(nib.Nifti1Image(voxels, np.eye(4), header), path)
    frames_FYX = read_frames(path, (3, 0))
    assert frames_FYX.dtype == np.float32
    assert np.array_equal(frames_FYX, voxels[:, :, 1, [3, 0]].transpose(2, 1, 0))
    assert np.array_equal(read_frames(path, [1], z=2)[0], voxels[:, :, 2, 1].T)


def test_values_agree_with_nibabel_where_the_header_scales_them(cine: Path) -> None:
    patch(cine, SCL_SLOPE, "ff", 0.5, -3.0)
    expected = nib.load(cine).get_fdata()[:, :, 1, 2].T
    assert np.array_equal(read_frames(cine, [2])[0], expected.astype(np.float32))


def test_slope_zero_means_not_scaled(cine: Path) -> None:
    patch(cine, SCL_SLOPE, "ff", 0.0, 77.0)
    assert np.array_equal(read_frames(cine, [2])[0], VOXELS_XYZT[:, :, 1, 2].T)


def test_a_file_of_several_gzip_members_is_read(cine: Path) -> None:
    raw = gzip.decompress(cine.read_bytes())
    cine.write_bytes(gzip.compress(raw[:100]) + gzip.compress(raw[100:]))
    assert np.array_equal(read_frames(cine, [0])[0], VOXELS_XYZT[:, :, 1, 0].T)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def cut_checksum(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def wrong_checksum(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8] + b"\1\2\3\4" + path.read_bytes()[-4:])


def wrong_stream(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[30:60] = b"\xff" * 30
    path.write_bytes(raw)


def cut_before_compression(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-10]))


def cut_plain_file(path: Path) -> None:
    path.write_bytes(gzip.decompress(path.read_bytes())[:-10])


def short_header(path: Path) -> None:
    path.write_bytes(gzip.compress(b"\0" * 300))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_bytes(b"<html>not found</html>" * 40)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def header(offset: int, layout: str, *values: Any) -> Callable[[Path], None]:
    return lambda path: patch(path, offset, layout, *values)


BAD = {
    "cut in half": (cut_in_half, "cut short"),
    "checksum cut off": (cut_checksum, "cut short"),
    "wrong checksum": (wrong_checksum, "CRC"),
    "wrong stream": (wrong_stream, "corrupt compressed data|cut short|CRC"),
    "cut before compression": (cut_before_compression, "cut short"),
    "cut plain file": (cut_plain_file, "claims"),
    "short header": (short_header, "300 of 348"),
    "empty": (empty, "0 of 348"),
    "text": (text, "not a single-file NIfTI-1"),
    "folder": (folder, "not a regular file"),
    "pipe": (pipe, "not a regular file"),
    "claims 32767^3": (header(DIM, "8h", 4, 32767, 32767, 32767, 3, 1, 1, 1), "claims"),
    "claims 32767^7": (header(DIM, "8h", 4, *[32767] * 7), "claims"),
    "2-D": (header(DIM, "8h", 2, 5, 6, 1, 1, 1, 1, 1), "2-D"),
    "5-D": (header(DIM, "8h", 5, 5, 6, 3, 2, 2, 1, 1), "5-D"),
    "no slices": (header(DIM, "8h", 4, 5, 6, 0, 4, 1, 1, 1), "no voxels"),
    "negative": (header(DIM, "8h", 4, 5, 6, -3, 4, 1, 1, 1), "no voxels"),
    "99 axes": (header(DIM, "h", 99), "header|axes|no voxels|-D"),
    "NaN affine": (header(SROW_X, "f", float("nan")), "affine"),
    "infinite intercept": (header(SCL_SLOPE, "ff", 1.0, float("inf")), "broken header"),
    "unknown type": (header(DATATYPE, "h", 999), "broken header"),
    "complex": (header(DATATYPE, "h", 32), "grey"),
    "colour": (header(DATATYPE, "h", 128), "grey"),
    "voxels in the header": (header(VOX_OFFSET, "f", 12.0), "inside the header"),
    "voxels at NaN": (header(VOX_OFFSET, "f", float("nan")), "broken header"),
    "voxels past the end": (header(VOX_OFFSET, "f", 1e30), "claims"),
    "voxels in another file": (header(MAGIC, "4s", b"ni1\0"), "not a single-file NIfTI-1"),
}


@pytest.mark.parametrize(("damage", "reason"), BAD.values(), ids=BAD)
def test_a_bad_file_is_refused_with_its_reason_and_little_memory(
    cine: Path, damage: Callable[[Path], None], reason: str
) -> None:
    damage(cine)
    tracemalloc.start()
    with pytest.raises(RecordError, match=reason) as caught:
        read_frames(cine, [0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(cine) in str(caught.value)
    assert peak < 32 << 20


def test_what_the_system_refuses_keeps_its_number(cine: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError) as caught:
            read_frames(cine, [0])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (caught.value.errno, caught.value.filename) == (errno.EMFILE, str(cine))
    cine.unlink()
    with pytest.raises(FileNotFoundError):
        read_frames(cine, [0])


def test_frames_with_too_many_pixels_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    header = nib.Nifti1Header()
    header.set_data_shape((30_000, 20_000, 1, 1))
    header.set_data_dtype(np.uint8)
    header["magic"], header["vox_offset"] = b"n+1", 352
    with path.open("wb") as file:
        file.write(header.binaryblock)
        file.truncate(352 + 30_000 * 20_000)  # all of it is there, and takes no space
    tracemalloc.start()
    reason = r"20,000 × 30,000 = 600,000,000 pixels are more than data\.max_pixels=100000000"
    with pytest.raises(RecordError, match=reason):
        read_frames(path, [0], max_pixels=100_000_000)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused_only_in_the_frames_read(
    tmp_path: Path, value: float
) -> None:
    voxels = VOXELS_XYZT.astype(np.float32)
    voxels[2, 3, 1, 2] = value
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), path)
    with pytest.raises(RecordError, match="NaN or Inf"):
        read_frames(path, [0, 2])
    assert np.isfinite(read_frames(path, [0, 1])).all()


def test_a_double_beyond_float32_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.nii.gz"
    nib.save(nib.Nifti1Image(np.full((2, 2, 1, 1), 1e300), np.eye(4)), path)
    with pytest.raises(RecordError, match="Inf"):
        read_frames(path, [0])


def test_a_frame_beyond_the_last_is_refused(cine: Path) -> None:
    with pytest.raises(RecordError, match="no frame 5, it has 4"):
        read_frames(cine, [0, 4])


def test_the_limit_holds_for_the_volume_and_for_what_follows_it(cine: Path) -> None:
    with pytest.raises(RecordError, match="limit of 500"):
        read_nifti(cine, max_bytes=500)
    cine.write_bytes(gzip.compress(gzip.decompress(cine.read_bytes()) + bytes(5000)))
    with pytest.raises(RecordError, match="follows the voxels"):
        read_nifti(cine, max_bytes=2000)
    assert read_nifti(cine, max_bytes=10_000).stored.shape == (4, 3, 6, 5)
