from __future__ import annotations

import gzip
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from artifactgen.data.base import Catalog
from artifactgen.data.image import scale_to_unit
from artifactgen.data.nifti_folder import NiftiFolder
from artifactgen.errors import ConfigError, DataError
from artifactgen.types import Failure, Framing, Sample

SHAPE = (7, 9, 5)
AS_IT_IS = Framing(crop_mode="squash", interpolation="nearest")
AXES = {"axial": 2, "coronal": 1, "sagittal": 0}


def folder(root: Path, size: tuple[int, int] = (8, 8), **options: Any) -> NiftiFolder:
    return NiftiFolder(root=str(root), image_size=size, framing=AS_IT_IS, **options)


def save(path: Path, voxels: NDArray[Any], affine: NDArray[Any] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
    return path


def read(source: NiftiFolder, catalog: Catalog | None = None) -> list[Sample | Failure]:
    catalog = catalog or source.scan()
    return [r for s, rows in catalog.splits.items() for r in source.read(catalog, s, 0, len(rows))]


def image(source: NiftiFolder) -> NDArray[Any]:
    (record,) = read(source)
    assert isinstance(record, Sample), record
    return record.image_CHW


def ids(catalog: Catalog) -> dict[str, list[str]]:
    return {split: list(rows.record_ids(0, len(rows))) for split, rows in catalog.splits.items()}


def as_a_viewer_shows(canonical_RAS: NDArray[Any], axis: str, index: int) -> NDArray[Any]:
    """A slice of a volume whose axes run to the right, to the front and up."""
    if axis == "axial":  # counted from the feet; the front is at the top, the right on the left
        return canonical_RAS[::-1, ::-1, index].T
    if axis == "coronal":  # counted from the front; the head is at the top
        return canonical_RAS[::-1, ::-1][:, index, ::-1].T
    return canonical_RAS[::-1][index, ::-1, ::-1].T  # counted from the right; the nose is left


def affines() -> dict[str, NDArray[Any]]:
    """Every way in which axes can run, in the same spacing, and an oblique one."""
    found = {}
    for order in ((0, 1, 2), (2, 0, 1), (1, 0, 2)):
        for signs in ((1, 1, 1), (-1, -1, 1), (1, -1, -1), (-1, 1, 1)):
            affine = np.zeros((4, 4))
            affine[3, 3] = 1
            for stored, world in enumerate(order):
                affine[world, stored] = 1.5 * signs[stored]
            name = "".join("LPSRAI"[w + 3 * (signs[i] < 0)] for i, w in enumerate(order))
            found[name] = affine
    turn = np.array([[0.98, -0.17, 0.1], [0.17, 0.98, 0.05], [-0.1, -0.03, 0.99]])
    found["oblique"] = np.block([[turn, np.zeros((3, 1))], [np.zeros((1, 3)), np.ones((1, 1))]])
    return found


@pytest.mark.parametrize("affine", affines().values(), ids=affines())
@pytest.mark.parametrize("axis", AXES)
def test_slices_stand_as_in_nibabels_closest_canonical(
    tmp_path: Path, axis: str, affine: NDArray[Any]
) -> None:
    voxels = np.random.default_rng(0).integers(-500, 900, SHAPE).astype(np.int16)
    path = save(tmp_path / "a.nii.gz", voxels, affine)
    canonical = nib.as_closest_canonical(nib.load(path))
    expected = as_a_viewer_shows(canonical.get_fdata(), axis, 1)
    source = folder(tmp_path, expected.shape, axis=axis, slice=1)
    np.testing.assert_array_equal(image(source), scale_to_unit(expected[None]))


@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "<f4", ">f8", "<u2", "<i4"])
@pytest.mark.parametrize("scale", [(1.0, 0.0), (0.5, -7.0), (0.0, 3.0)], ids=str)
def test_values_are_nibabels_for_any_type_and_slope(
    tmp_path: Path, dtype: str, scale: tuple[float, float]
) -> None:
    voxels = np.random.default_rng(0).integers(0, 200, SHAPE).astype(dtype)
    header = nib.Nifti1Header(endianness=dtype[0] if dtype[0] in "<>" else "<")
    header.set_data_dtype(voxels.dtype)
    path = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(voxels, np.eye(4), header), path)
    raw = bytearray(path.read_bytes())
    struct.pack_into(f"{dtype[0] if dtype[0] in '<>' else '<'}ff", raw, 112, *scale)
    path.write_bytes(raw)
    expected = nib.load(path).get_fdata()[:, :, 2].T
    found = image(folder(tmp_path, expected.shape, window=(-100.0, 300.0)))
    np.testing.assert_allclose(found[0], ((expected + 100) / 400).clip(0, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("axis", "expected"),
    [("z", lambda v, i: v[:, :, i].T), ("y", lambda v, i: v[:, i].T), ("x", lambda v, i: v[i].T)],
)
@pytest.mark.parametrize("index", [0, 3, -1, None, 0.25, 1.0], ids=str)
def test_stored_axes_are_not_turned(
    tmp_path: Path, axis: str, expected: Callable[..., NDArray[Any]], index: float | None
) -> None:
    voxels = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    save(tmp_path / "a.nii.gz", voxels, np.diag([-1, -1, 1, 1]))
    count = SHAPE["xyz".index(axis)]
    place = {None: count // 2, 0.25: int(count / 4), 1.0: count - 1}.get(index, index)
    slice_HW = expected(voxels, place)
    found = image(folder(tmp_path, slice_HW.shape, axis=axis, slice=index))
    np.testing.assert_array_equal(found, scale_to_unit(slice_HW[None]))


def test_pixels_of_reformatted_slices_are_square(tmp_path: Path) -> None:
    save(tmp_path / "a.nii.gz", np.ones(SHAPE, np.float32), np.diag([1, 1, 3, 1]))
    (record,) = read(folder(tmp_path, axis="coronal"))
    assert isinstance(record, Sample)
    assert record.stored_size == (3 * SHAPE[2], SHAPE[0])


def test_frames_are_channels_each_in_its_own_range(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 900, (*SHAPE, 6)).astype(np.int16)
    save(tmp_path / "a.nii.gz", voxels)
    source = folder(tmp_path, (9, 7), frames=(0, 2, -1))
    catalog = source.scan()
    assert catalog.frame_names == ("frame 0", "frame 2", "frame -1")
    assert catalog.channels == 3
    expected = scale_to_unit(voxels[:, :, 2][..., [0, 2, 5]].transpose(2, 1, 0))
    np.testing.assert_array_equal(image(source), expected)
    np.testing.assert_array_equal(image(folder(tmp_path, (9, 7)))[0], expected[0])


def test_a_frame_that_there_is_not_is_a_failure(tmp_path: Path) -> None:
    save(tmp_path / "a.nii.gz", np.ones((*SHAPE, 4), np.int16))
    (record,) = read(folder(tmp_path, frames=(4,)))
    assert isinstance(record, Failure)
    assert "no frame 4: it has 4, counted from 0" in record.reason


def test_every_slice_becomes_a_record_with_the_id_of_its_volume(tmp_path: Path) -> None:
    voxels = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
    for name in ("b/two", "a_1/one", "b/three"):
        save(tmp_path / "test" / f"{name}.nii.gz", voxels)
    source = folder(tmp_path, (9, 7), expand="slices")
    catalog = source.scan()
    names = ids(catalog)["test"]
    assert names == [f"{v}_{z:03d}" for v in ("a_1/one", "b/three", "b/two") for z in range(5)]
    assert names == sorted(names)
    assert {name.rpartition("_")[0] for name in names} == {"a_1/one", "b/three", "b/two"}
    for record, name in zip(read(source, catalog), names, strict=True):
        assert isinstance(record, Sample)
        z = int(name.rpartition("_")[2])
        np.testing.assert_array_equal(record.image_CHW, scale_to_unit(voxels[:, :, z].T[None]))
        assert record.label == ("a_1/" not in name)


def test_slices_are_counted_along_the_axis_that_is_cut(tmp_path: Path) -> None:
    save(tmp_path / "a.nii.gz", np.ones(SHAPE, np.int16), np.diag([1, 1, -2, 1])[[2, 0, 1, 3]])
    catalog = folder(tmp_path, axis="sagittal", expand="slices").scan()
    assert len(catalog.splits["test"]) == SHAPE[2]


def test_a_broken_volume_is_one_failure_beside_the_slices_of_others(tmp_path: Path) -> None:
    save(tmp_path / "a.nii.gz", np.ones(SHAPE, np.int16))
    (tmp_path / "b.nii.gz").write_bytes(b"\x1f\x8b broken")
    found = read(folder(tmp_path, expand="slices"))
    assert [type(record).__name__ for record in found] == ["Sample"] * 5 + ["Failure"]
    assert found[-1].record_id == "b"


def test_an_id_that_a_slice_would_have_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.nii.gz", np.ones(SHAPE, np.int16))
    (tmp_path / "a_003.nii").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"ids of other records: a_003\. Rename"):
        folder(tmp_path, expand="slices").scan()


def test_folders_of_one_volume_each_are_patients_and_no_classes(tmp_path: Path) -> None:
    for patient in ("p1", "p2", "p3"):
        save(tmp_path / patient / "t1.nii.gz", np.ones(SHAPE, np.int16))
        save(tmp_path / patient / "seg.nii.gz", np.ones(SHAPE, np.int16))
    source = folder(tmp_path, pattern="*t1.nii.gz")
    assert source.scan().classes == ()
    assert ids(source.scan()) == {"test": ["p1/t1", "p2/t1", "p3/t1"]}
    assert folder(tmp_path, pattern="*t1*", class_folders=True).scan().classes == ("p1", "p2", "p3")
    assert folder(tmp_path).scan().classes == ("p1", "p2", "p3")
    assert folder(tmp_path, class_folders=False).scan().classes == ()
    assert ids(folder(tmp_path, pattern="p[12]/t1*").scan()) == {"test": ["p1/t1", "p2/t1"]}


HEADER = {"dim": 40, "datatype": 70, "offset": 108, "slope": 112, "srow": 280}


def patched(name: str, layout: str, *values: Any) -> Callable[[bytes], bytes]:
    def patch(raw: bytes) -> bytes:
        changed = bytearray(raw)
        struct.pack_into("<" + layout, changed, HEADER[name], *values)
        return bytes(changed)

    return patch


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut": (lambda raw: raw[: len(raw) // 2], "cut short"),
    "short header": (lambda raw: raw[:200], "200 of 348"),
    "32767^3": (patched("dim", "8h", 3, 32767, 32767, 32767, 1, 1, 1, 1), "claims"),
    "32767 slices": (patched("dim", "8h", 3, 7, 9, 32767, 1, 1, 1, 1), "claims"),
    "2-D": (patched("dim", "8h", 2, 7, 9, 1, 1, 1, 1, 1), "2-D of shape"),
    "5-D": (patched("dim", "8h", 5, 7, 9, 5, 1, 2, 1, 1), "expected 3-D or 4-D"),
    "no slices": (patched("dim", "8h", 3, 7, 9, 0, 1, 1, 1, 1), "no voxels"),
    "NaN affine": (patched("srow", "f", float("nan")), "affine"),
    "colour": (patched("datatype", "h", 128), "grey"),
}


@pytest.mark.parametrize("expand", [None, "slices"], ids=["whole", "slices"])
@pytest.mark.parametrize(("damage", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_volume_is_a_failure_that_takes_no_memory(
    tmp_path: Path, damage: Callable[[bytes], bytes], reason: str, expand: Any
) -> None:
    good = save(tmp_path / "b.nii.gz", np.ones(SHAPE, np.int16))
    raw = gzip.decompress(good.read_bytes())
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(damage(raw)))
    source = folder(tmp_path, expand=expand)
    tracemalloc.start()
    found = read(source)
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()
    failures = [record for record in found if isinstance(record, Failure)]
    assert {type(r).__name__ for r in found if r.record_id.startswith("b")} == {"Sample"}
    assert all(record.record_id.startswith("a") for record in failures)
    assert failures
    assert reason in failures[0].reason


def test_a_wrong_checksum_is_a_failure(tmp_path: Path) -> None:
    save(tmp_path / "b.nii.gz", np.ones(SHAPE, np.int16))
    path = save(tmp_path / "a.nii.gz", np.ones(SHAPE, np.int16))
    path.write_bytes(path.read_bytes()[:-8] + b"\1\2\3\4" + path.read_bytes()[-4:])
    first, second = read(folder(tmp_path))
    assert isinstance(first, Failure)
    assert "CRC" in first.reason
    assert isinstance(second, Sample)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers_fail_only_in_their_slice(tmp_path: Path, value: float) -> None:
    voxels = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    voxels[3, 3, 1] = value
    save(tmp_path / "a.nii.gz", voxels)
    found = read(folder(tmp_path, expand="slices"))
    assert [isinstance(record, Failure) for record in found] == [False, True, False, False, False]
    assert "NaN or Inf among the pixels" in found[1].reason  # type: ignore[union-attr]


def test_a_singular_affine_has_no_anatomical_axes(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", np.ones(SHAPE, np.int16))
    raw = bytearray(path.read_bytes())
    struct.pack_into("<12f", raw, HEADER["srow"], *[0.0] * 12)
    path.write_bytes(raw)
    (record,) = read(folder(tmp_path, axis="axial"))
    assert isinstance(record, Failure)
    assert "data.axis=z, y or x" in record.reason


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"slice": 1.5}, "between 0 and 1"),
        ({"slice": 0, "expand": "slices"}, "Leave out one of them"),
        ({"frames": ()}, "name at least one"),
        ({"window": (5.0, 5.0)}, "first below the second"),
    ],
    ids=["slice", "slice and expand", "frames", "window"],
)
def test_options_that_no_volume_fulfils_are_refused(
    tmp_path: Path, options: dict[str, Any], reason: str
) -> None:
    save(tmp_path / "a.nii", np.ones(SHAPE, np.int16))
    with pytest.raises(ConfigError, match=reason):
        folder(tmp_path, **options).scan()


def test_a_folder_without_volumes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(DataError, match=r"no volume \(data\.pattern=\*\.nii\*\) below"):
        folder(tmp_path).scan()
    with pytest.raises(DataError, match="no such folder"):
        folder(tmp_path / "absent").scan()
