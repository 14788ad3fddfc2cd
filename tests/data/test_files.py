"""Files of every kind in one table, each told by its content."""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from helpers.dicom import write_dicom
from numpy.typing import NDArray
from PIL import Image

from artifactgen.data.base import Catalog
from artifactgen.data.image import scale_to_unit
from artifactgen.data.manifest import Manifest
from artifactgen.errors import ConfigError, DataError
from artifactgen.types import Failure, Framing, Sample

AS_IT_IS = Framing(crop_mode="squash", interpolation="nearest")
RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 5), dtype=np.uint8)
RGB = RNG.integers(0, 256, (6, 5, 3), dtype=np.uint8)
VOLUME = RNG.integers(-900, 900, (7, 6, 5)).astype(np.int16)


def table(folder: Path, *names: str, size: tuple[int, int] = (6, 5), **options: Any) -> Manifest:
    path = folder / "table.csv"
    path.write_text("path\n" + "\n".join(names))
    return Manifest(path=str(path), image_size=size, framing=AS_IT_IS, **options)


def read(source: Manifest, catalog: Catalog | None = None) -> list[Sample | Failure]:
    catalog = catalog or source.scan()
    return [r for s, rows in catalog.splits.items() for r in source.read(catalog, s, 0, len(rows))]


def image(source: Manifest) -> NDArray[Any]:
    (record,) = read(source)
    assert isinstance(record, Sample), record
    return record.image_CHW


def save_npy(path: Path, array: NDArray[Any], **options: Any) -> str:
    with path.open("wb") as file:
        np.save(file, array, **options)
    return path.name


def as_rgb(grey: NDArray[Any]) -> NDArray[Any]:
    return np.stack([grey] * 3)


NPY: dict[str, tuple[NDArray[Any], dict[str, Any], NDArray[Any]]] = {
    "grey": (GREY, {}, as_rgb(GREY)),
    "grey, as grey": (GREY, {"mode": "L"}, GREY[None]),
    "one channel": (GREY[..., None], {}, as_rgb(GREY)),
    "RGB": (RGB, {}, RGB.transpose(2, 0, 1)),
    "RGBA": (np.dstack([RGB, GREY]), {}, RGB.transpose(2, 0, 1)),
    "Fortran order": (np.asfortranarray(RGB), {}, RGB.transpose(2, 0, 1)),
    "bool": (GREY > 99, {"mode": "L"}, (GREY[None] > 99) * np.uint8(255)),
    "uint16": (GREY.astype(np.uint16) * 9, {}, GREY[None].astype(np.uint16) * 9),
    "big-endian": (GREY.astype(">u2") * 9, {}, GREY[None].astype(np.uint16) * 9),
    "float64": (RGB / 7.0, {}, (RGB / 7.0).transpose(2, 0, 1).astype(np.float32)),
    "int16": (VOLUME[0], {}, scale_to_unit(VOLUME[:1])),
    "float, windowed": (
        RGB / 1.0,
        {"window": (50.0, 150.0)},
        ((RGB.transpose(2, 0, 1) - 50.0) / 100).clip(0, 1).astype(np.float32),
    ),
    "uint16, windowed": (
        GREY.astype(np.uint16),
        {"window": (50.0, 150.0)},
        ((GREY[None] - 50.0) / 100).clip(0, 1).astype(np.float32),
    ),
    "volume": (VOLUME, {}, scale_to_unit(VOLUME[3:4])),
    "volume of bytes": (np.stack([GREY] * 7), {}, scale_to_unit(GREY[None])),
    "volume, across x": (VOLUME, {"axis": "x", "slice": -1}, scale_to_unit(VOLUME[None, :, :, 4])),
    "cine": (VOLUME.reshape(1, 7, 6, 5).repeat(3, 0), {"slice": 0}, scale_to_unit(VOLUME[:1])),
    "frames": (
        np.stack([VOLUME, 2 * VOLUME]),
        {"frames": (1, 0), "window": (-2000.0, 2000.0), "slice": 0},
        ((np.stack([2 * VOLUME[0], VOLUME[0]]) + 2000.0) / 4000).astype(np.float32),
    ),
}


@pytest.mark.parametrize(("array", "options", "expected"), NPY.values(), ids=NPY)
def test_arrays_are_pictures_or_volumes_by_their_axes(
    tmp_path: Path, array: NDArray[Any], options: dict[str, Any], expected: NDArray[Any]
) -> None:
    name = save_npy(tmp_path / "a.npy", array)
    found = image(table(tmp_path, name, size=expected.shape[1:], **options))
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_what_a_file_is_stands_in_its_content_not_in_its_name(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(VOLUME, np.eye(4)), tmp_path / "a.nii.gz")
    (tmp_path / "a.nii.gz").rename(tmp_path / "a.png")
    save_npy(tmp_path / "b.dcm", VOLUME)
    write_dicom(tmp_path / "c.npy", VOLUME[0])
    expected = [VOLUME[:, :, 2].T, VOLUME[3], VOLUME[0]]
    found = read(table(tmp_path, "a.png", "b.dcm", "c.npy", size=(6, 7)))
    for record, plane in zip(found, expected, strict=True):
        assert isinstance(record, Sample)
        assert record.stored_size == plane.shape
        assert record.image_CHW.max() == 1


def test_pictures_of_another_kind_than_the_first_are_failures(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    save_npy(tmp_path / "b.npy", VOLUME)
    found = read(table(tmp_path, "a.png", "b.npy"))
    assert [type(record).__name__ for record in found] == ["Sample", "Failure"]
    assert "float32, and those of the data set uint8" in found[1].reason  # type: ignore[union-attr]


def test_slices_of_volumes_stand_beside_pictures(tmp_path: Path) -> None:
    save_npy(tmp_path / "a.npy", VOLUME)
    save_npy(tmp_path / "b.npy", GREY / 255.0)
    source = table(tmp_path, "a.npy", "b.npy", expand="slices")
    catalog = source.scan()
    names = catalog.splits["test"].record_ids(0, 99)
    assert list(names) == [*(f"a_{z:03d}" for z in range(7)), "b"]
    found = read(source, catalog)
    np.testing.assert_array_equal(found[2].image_CHW, scale_to_unit(VOLUME[2:3]))  # type: ignore[union-attr]
    np.testing.assert_allclose(found[7].image_CHW[0], GREY / 255)  # type: ignore[union-attr]


def test_a_column_tells_the_slice_of_each_record(tmp_path: Path) -> None:
    save_npy(tmp_path / "a.npy", VOLUME)
    source = table(tmp_path)
    rows = "record_id,path,slice\na,a.npy,0\nb,a.npy,-1\nc,a.npy,\n"
    Path(source.path).write_text(rows)
    for record, z in zip(read(source), (0, 6, 3), strict=True):
        assert isinstance(record, Sample)
        np.testing.assert_array_equal(record.image_CHW, scale_to_unit(VOLUME[z : z + 1]))
    with pytest.raises(ConfigError, match="either every slice is a record"):
        replace(source, expand="slices").scan()
    Path(source.path).write_text(rows.replace("-1", "axial"))
    with pytest.raises(DataError, match=r"no whole number \(.*'axial'.*data\.slice_column"):
        source.scan()


class _Runs:
    def __reduce__(self) -> Any:
        return (Path("ran").touch, ())


def _pickled(path: Path) -> None:
    save_npy(path, np.array([_Runs()], dtype=object), allow_pickle=True)


def _header(shape: str, descr: str = "<i2") -> Callable[[Path], None]:
    def write(path: Path) -> None:
        text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}"
        text += " " * (117 - len(text)) + "\n"
        path.write_bytes(b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode())

    return write


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "pickle in it": (_pickled, "grey values"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps(VOLUME)), "no picture"),
    "cut": (lambda path: save_npy(path, VOLUME) and path.write_bytes(path.read_bytes()[:300]),
            "cut short: 300 of"),
    "cut in the header": (lambda path: path.write_bytes(b"\x93NUMPY\1\0\x76\0{'descr"), "header"),
    "a huge claim": (_header("(32767, 32767, 32767)"), "cut short"),
    "no axes": (_header("()"), "a picture has 2 axes"),
    "five axes": (_header("(1, 1, 1, 1, 1)"), "a picture has 2 axes"),
    "no pixels": (_header("(0, 5)"), "without pixels"),
    "text": (_header("(4, 5)", "<U9"), "grey values"),
    "complex": (_header("(4, 5)", "<c8"), "grey values"),
    "a version to come": (lambda path: path.write_bytes(b"\x93NUMPY\\9\0" + bytes(99)), "header"),
    "a header that is code": (lambda path: _header("__import__('os')")(path), "header"),
}  # fmt: skip


@pytest.mark.parametrize(("write", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_array_is_a_failure_that_takes_no_memory_and_runs_nothing(
    tmp_path: Path, write: Callable[[Path], None], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_npy(tmp_path / "b.npy", VOLUME)
    write(tmp_path / "a.npy")
    tracemalloc.start()
    bad, good = read(table(tmp_path, "a.npy", "b.npy"))
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    assert isinstance(bad, Failure)
    assert reason in bad.reason
    assert isinstance(good, Sample)
    assert not (tmp_path / "ran").exists()


def test_a_volume_of_too_many_pixels_is_a_failure(tmp_path: Path) -> None:
    save_npy(tmp_path / "a.npy", VOLUME)
    (record,) = read(table(tmp_path, "a.npy", max_pixels=29))
    assert isinstance(record, Failure)
    assert "6 × 5 = 30 pixels are more than data.max_pixels=29" in record.reason


def test_a_table_of_text_files_is_refused_with_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_text("not here\n")
    with pytest.raises(DataError, match="None of the first pictures can be read"):
        table(tmp_path, "a.nii").scan()
