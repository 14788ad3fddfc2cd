"""Files of any content: read as what they are, or refused in words; never a traceback."""

from __future__ import annotations

import gzip
import io
import struct
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import pytest
from helpers.broken import encoded, picture
from helpers.strategies import (
    any_text,
    damaged,
    fuzzed,
    ids_of_a_data_set,
    looks,
    refused_or_read,
    scratch,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from artifactgen.data.base import decode_each
from artifactgen.data.decoding import decode_picture
from artifactgen.data.hdf5 import Hdf5
from artifactgen.data.nifti import read_nifti
from artifactgen.data.reading import scan_source
from artifactgen.errors import RecordError
from artifactgen.types import Failure

SMALL = picture(0, (9, 11))
FILES = {
    "png": encoded(SMALL),
    "palette": encoded(Image.fromarray(SMALL).quantize(8)),
    "deep": encoded(SMALL[..., 0].astype(np.uint16) * 257),
    "jpeg": encoded(picture(1, (40, 30)), "JPEG"),
    "progressive": encoded(picture(1, (40, 30)), "JPEG", progressive=True),
    "cmyk": encoded(Image.fromarray(picture(1)).convert("CMYK"), "JPEG"),
    "tiff": encoded(SMALL, "TIFF"),
    "lzw": encoded(SMALL, "TIFF", compression="tiff_lzw"),
    "float": encoded(SMALL[..., 0].astype(np.float32), "TIFF"),
    "webp": encoded(SMALL, "WEBP"),
    "gif": encoded(SMALL, "GIF"),
    "bmp": encoded(SMALL, "BMP"),
    "ppm": encoded(SMALL, "PPM"),
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", FILES)
@given(st.data())
@fuzzed(60)
def test_a_damaged_picture_is_a_failure_or_a_picture(kind: str, data: st.DataObject) -> None:
    broken = data.draw(damaged(FILES[kind]))
    decode = partial(decode_picture, broken, mode="RGB", max_pixels=10**6)
    (found,) = decode_each([("id", None)], lambda *_: decode(), split="test", start=0)  # type: ignore[arg-type,return-value]
    if isinstance(found, Failure):
        assert found.reason
        return
    assert str(found.dtype) in ("uint8", "uint16", "float32")  # type: ignore[attr-defined]
    assert np.isfinite(found).all()  # type: ignore[call-overload]


DTYPES = ("u1", ">u2", "u2", "i2", "u4", "f2", "f4", ">f8", "?", "c8", "S3", "V4")
shapes = st.lists(st.integers(0, 6), max_size=5).map(tuple)
arrays = st.tuples(shapes, st.sampled_from(DTYPES))
KEYS = ("images", "labels", "record_ids", "split", "train/images", "val/images", "train/labels")


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    """Data sets of an HDF5 file by key, often such as the program expects, often not."""
    found: dict[str, Any] = {}
    for key in draw(st.lists(st.sampled_from(KEYS), unique=True, max_size=4)):
        shape, dtype = draw(arrays)
        if draw(st.booleans()) and key.endswith("images"):
            shape, dtype = (draw(st.integers(0, 6)), 5, 7, 3), "u1"
        rng = np.random.default_rng(len(found))
        found[key] = rng.integers(0, 99, shape).astype(dtype)
        if key in ("record_ids", "split") and draw(st.booleans()):
            found[key] = draw(st.lists(any_text(9).filter(_storable), max_size=6))
    if "images" in found and draw(st.booleans()):
        found["labels"] = np.arange(len(np.atleast_1d(found["images"])))
    return found


def _storable(text: str) -> bool:
    return "\0" not in text and text.isprintable()


def read_all(path: Path) -> None:
    refused_or_read(Hdf5(path=str(path), image_size=(8, 8)))


@given(layouts())
@fuzzed(150)
def test_any_layout_of_hdf5(layout: dict[str, Any]) -> None:
    with scratch() as folder:
        with h5py.File(folder / "data.h5", "w") as file:
            for key, values in layout.items():
                file[key] = values
        read_all(folder / "data.h5")


@given(ids_of_a_data_set(most=6))
@fuzzed(60)
def test_any_ids_of_hdf5(ids: list[str]) -> None:
    names = [name.encode("utf-8", "surrogateescape") for name in ids if _encodes(name)]
    with scratch() as folder:
        with h5py.File(folder / "data.h5", "w") as file:
            file["images"] = np.zeros((len(names), 8, 8), np.uint8)
            stored = file.create_dataset("record_ids", (len(names),), h5py.string_dtype())
            for row, name in enumerate(names):
                stored[row] = name.replace(b"\0", b"")
        kept = [name.replace(b"\0", b"").decode("utf-8", "surrogateescape") for name in names]
        source = Hdf5(path=str(folder / "data.h5"), image_size=(8, 8))
        if not names or len(set(map(looks, kept))) < len(kept):
            read_all(folder / "data.h5")
            return
        catalog = scan_source(source)
        assert list(catalog.splits["test"].record_ids(0, len(kept))) == kept


def _encodes(name: str) -> bool:
    try:
        name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


@given(damaged(b"".join([bytes(2000)])), st.booleans())
@fuzzed(5)
def test_hdf5_that_is_none(data: bytes, signed: bool) -> None:
    with scratch() as folder:
        (folder / "data.h5").write_bytes((b"\x89HDF\r\n\x1a\n" if signed else b"") + data)
        read_all(folder / "data.h5")


def nifti() -> bytes:
    file = io.BytesIO()
    voxels = np.random.default_rng(0).integers(0, 99, (5, 6, 3, 2)).astype(np.int16)
    nib.Nifti1Image(voxels, np.eye(4)).to_stream(file)
    return file.getvalue()


NIFTI = nifti()
FIELDS = {
    0: "i",  # sizeof_hdr
    **{40 + 2 * axis: "h" for axis in range(8)},  # dim
    70: "h",  # datatype
    72: "h",  # bitpix
    **{76 + 4 * axis: "f" for axis in range(8)},  # pixdim
    108: "f",  # vox_offset
    112: "f",  # scl_slope
    116: "f",  # scl_inter
    252: "h",  # qform_code
    254: "h",  # sform_code
    280: "f",  # srow_x
    344: "4s",  # magic
}
LIKELY = (0, 1, 2, 3, 4, 5, 7, 8, 16, 64, 256, 348, 352, 32767, -1)


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """A NIfTI-1 file, some fields of whose header are anything."""
    data = bytearray(NIFTI)
    for offset in draw(st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=3)):
        kind = FIELDS[offset]
        if kind == "4s":
            value: Any = draw(st.sampled_from([b"n+1\0", b"ni1\0", b"n+2\0", b"\0\0\0\0"]))
        elif kind == "f":
            value = draw(st.one_of(st.sampled_from(LIKELY), st.floats(width=32)))
        else:
            lowest = -(1 << (8 * struct.calcsize(kind) - 1))
            value = draw(st.one_of(st.sampled_from(LIKELY), st.integers(lowest, -lowest - 1)))
        struct.pack_into(kind, data, offset, value)
    return bytes(data)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(headers(), st.booleans())
@fuzzed(400)
def test_any_header_of_nifti_is_refused_or_read_as_nibabel_does(data: bytes, packed: bool) -> None:
    with scratch() as folder:
        path = folder / ("a.nii.gz" if packed else "a.nii")
        path.write_bytes(gzip.compress(data, 1) if packed else data)
        try:
            found = read_nifti(path)
        except RecordError as error:
            if str(path) not in str(error):
                raise AssertionError("it does not say where") from error
            return
        expected = np.asarray(nib.load(path).dataobj.get_unscaled())
        assert found.stored.T.shape == expected.shape
        assert found.stored.tobytes() == expected.T.tobytes()
        scaled = np.asarray(nib.load(path).dataobj, np.float64)
        values = found.stored.T.astype(np.float64) * found.slope + found.intercept
        np.testing.assert_allclose(values, scaled, rtol=1e-5)


@given(damaged(gzip.compress(NIFTI)))
@fuzzed(200)
def test_damaged_nifti_is_refused_or_read(data: bytes) -> None:
    with scratch() as folder:
        (folder / "a.nii.gz").write_bytes(data)
        try:
            found = read_nifti(folder / "a.nii.gz")
        except RecordError:
            return
        assert found.stored.size > 0
