from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pydicom.data
import pytest
from helpers.dicom import PATIENT, PATIENT_ID, write_dicom, write_series
from numpy.typing import NDArray
from pydicom.pixels import apply_modality_lut, apply_rescale, apply_windowing
from pydicom.pixels.processing import apply_color_lut

from artifactgen.data.base import Catalog
from artifactgen.data.dicom_folder import DicomFolder
from artifactgen.data.image import scale_to_unit
from artifactgen.errors import ConfigError, DataError
from artifactgen.types import Failure, Framing, Sample

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

OWN = Path(pydicom.data.__file__).parent / "test_files"
AS_IT_IS = Framing(crop_mode="squash", interpolation="nearest")
RNG = np.random.default_rng(0)
CT_ZYX = RNG.integers(-1000, 2000, (4, 12, 10)).astype(np.int16)


def folder(root: Path, size: tuple[int, int] = (12, 10), **options: Any) -> DicomFolder:
    return DicomFolder(root=str(root), image_size=size, framing=AS_IT_IS, **options)


def read(source: DicomFolder, catalog: Catalog | None = None) -> list[Sample | Failure]:
    catalog = catalog or source.scan()
    return [r for s, rows in catalog.splits.items() for r in source.read(catalog, s, 0, len(rows))]


def image(source: DicomFolder) -> NDArray[Any]:
    (record,) = read(source)
    assert isinstance(record, Sample), record
    return record.image_CHW


def reason(source: DicomFolder) -> str:
    (record,) = read(source)
    assert isinstance(record, Failure), record
    return record.reason


def ids(catalog: Catalog) -> dict[str, list[str]]:
    return {split: list(rows.record_ids(0, len(rows))) for split, rows in catalog.splits.items()}


def own(tmp_path: Path, name: str, **options: Any) -> tuple[NDArray[Any], pydicom.Dataset]:
    """A file of pydicom's as it is read here, at its own size, and as pydicom reads it."""
    path = tmp_path / "one" / f"{name}.dcm"
    path.parent.mkdir()
    path.write_bytes((OWN / path.name).read_bytes())
    dataset = pydicom.dcmread(path, force=True)
    return image(folder(path.parent, (dataset.Rows, dataset.Columns), **options)), dataset


GREY = ("CT_small", "MR_small", "MR_small_RLE", "MR_small_bigendian", "MR_small_implicit",
        "MR_small_jp2klossless", "693_J2KI", "examples_overlay", "image_dfl", "rtdose_1frame",
        "J2K_pixelrep_mismatch", "liver_1frame")  # fmt: skip


@pytest.mark.parametrize("name", GREY)
def test_grey_files_are_shown_as_pydicom_shows_them(tmp_path: Path, name: str) -> None:
    found, dataset = own(tmp_path, name)
    values = apply_modality_lut(dataset.pixel_array, dataset)
    if "WindowCenter" in dataset:
        shown = apply_windowing(values, dataset)
        slope, intercept = dataset.get("RescaleSlope", 1), dataset.get("RescaleIntercept", 0)
        low, high = (0, 2**dataset.BitsStored - 1)
        if dataset.PixelRepresentation:
            low, high = -(2 ** (dataset.BitsStored - 1)), 2 ** (dataset.BitsStored - 1) - 1
        low, high = (limit * slope + intercept for limit in (low, high))
        expected = ((shown - low) / (high - low))[None]
    else:
        expected = scale_to_unit(values[None].astype(np.float32))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)


COLOUR = ("examples_rgb_color", "examples_ybr_color", "examples_jpeg2k", "SC_rgb_rle",
          "SC_rgb_small_odd", "ExplVR_BigEnd", "SC_ybr_full_422_uncompressed")  # fmt: skip


@pytest.mark.parametrize("name", [n for n in COLOUR if (OWN / f"{n}.dcm").exists()])
def test_colours_are_those_of_pydicom_as_rgb_of_8_bits(tmp_path: Path, name: str) -> None:
    found, dataset = own(tmp_path, name)
    pixels = pydicom.pixels.pixel_array(dataset, index=0)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, pixels.transpose(2, 0, 1))


def test_a_palettes_colours_are_looked_up(tmp_path: Path) -> None:
    found, dataset = own(tmp_path, "examples_palette")
    colours = apply_color_lut(pydicom.pixels.pixel_array(dataset, index=0), dataset)
    expected = colours >> (8 * colours.itemsize - 8)
    np.testing.assert_array_equal(found, expected.transpose(2, 0, 1))


def test_the_files_window_is_its_first_and_an_own_one_replaces_it(tmp_path: Path) -> None:
    scale = {"RescaleSlope": 2, "RescaleIntercept": -100}
    write_dicom(
        tmp_path / "a.dcm", CT_ZYX[0], WindowCenter=[40, 700], WindowWidth=[400, 90], **scale
    )
    values = CT_ZYX[0] * 2.0 - 100
    expected = ((values - 39.5) / 399 + 0.5).clip(0, 1)
    np.testing.assert_allclose(image(folder(tmp_path))[0], expected, atol=1e-6)
    found = image(folder(tmp_path, window=(-500.0, 500.0)))[0]
    np.testing.assert_allclose(found, ((values + 500) / 1000).clip(0, 1), atol=1e-6)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_every_voi_function_is_pydicoms(tmp_path: Path, function: str) -> None:
    path = write_dicom(
        tmp_path / "a.dcm", CT_ZYX[0], WindowCenter=40, WindowWidth=300, VOILUTFunction=function
    )
    dataset = pydicom.dcmread(path)
    expected = (apply_windowing(dataset.pixel_array, dataset) + 32768) / 65535
    np.testing.assert_allclose(image(folder(tmp_path))[0], expected, atol=1e-6)


def test_without_a_window_a_picture_has_its_own_range(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", CT_ZYX[0], RescaleSlope=0.5, RescaleIntercept=7)
    dataset = pydicom.dcmread(path)
    expected = scale_to_unit(apply_rescale(dataset.pixel_array, dataset)[None])
    np.testing.assert_allclose(image(folder(tmp_path)), expected, atol=1e-6)


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", CT_ZYX[0], PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_allclose(image(folder(tmp_path)), 1 - scale_to_unit(CT_ZYX[:1]), atol=1e-6)


@pytest.mark.parametrize("width", [0, -5])
def test_a_window_that_shows_nothing_is_a_failure(tmp_path: Path, width: int) -> None:
    write_dicom(tmp_path / "a.dcm", CT_ZYX[0], WindowCenter=40, WindowWidth=width)
    assert "shows nothing; set data.window" in reason(folder(tmp_path))


def test_slices_are_in_order_along_their_normal(tmp_path: Path) -> None:
    write_series(tmp_path / "s", CT_ZYX)  # names and numbers run the other way
    for z in range(len(CT_ZYX)):
        found = image(folder(tmp_path, slice=z))
        np.testing.assert_array_equal(found, scale_to_unit(CT_ZYX[z : z + 1]))
    found = image(folder(tmp_path))
    np.testing.assert_array_equal(found, scale_to_unit(CT_ZYX[2:3]))


def test_without_positions_numbers_tell_the_order(tmp_path: Path) -> None:
    for z, plane in enumerate(CT_ZYX):
        write_dicom(tmp_path / "s" / f"{9 - z}", plane, InstanceNumber=z + 1)
    found = image(folder(tmp_path, slice=0))
    np.testing.assert_array_equal(found, scale_to_unit(CT_ZYX[:1]))


def test_files_of_one_place_are_frames(tmp_path: Path) -> None:
    for t in range(3):
        write_series(tmp_path / f"s/{t}", CT_ZYX + 10 * t, InstanceNumber=t)
    for t in range(3):
        for path in (tmp_path / f"s/{t}").iterdir():
            path.rename(tmp_path / "s" / f"{t}_{path.name}")
    source = folder(tmp_path, frames=(0, 2), window=(-2000.0, 3000.0), slice=1)
    expected = (np.stack([CT_ZYX[1], CT_ZYX[1] + 20]) + 2000) / 5000
    np.testing.assert_allclose(image(source), expected, atol=1e-6)
    assert source.scan().frame_names == ("frame 0", "frame 2")


def test_slices_across_other_axes_are_turned_as_a_radiologist_looks_at_them(tmp_path: Path) -> None:
    write_series(tmp_path, CT_ZYX, step=1.0)  # rows to the back, columns to the left, up
    as_is = {"window": (-2000.0, 3000.0), "slice": 1}

    def expected(plane: NDArray[Any]) -> NDArray[Any]:
        return ((plane + 2000.0) / 5000)[None].astype(np.float32)

    for axis, plane in {
        "axial": CT_ZYX[1],
        "coronal": CT_ZYX[::-1, 1],
        "sagittal": CT_ZYX[::-1, :, 1],
        "y": CT_ZYX[:, 1],
        "x": CT_ZYX[:, :, 1],
    }.items():
        found = image(folder(tmp_path, plane.shape, axis=axis, **as_is))
        np.testing.assert_allclose(found, expected(plane), atol=1e-6, err_msg=axis)


def test_a_coronal_series_becomes_axial(tmp_path: Path) -> None:
    write_series(tmp_path, CT_ZYX, axes=(1, 0, 0, 0, 0, -1), step=1.0)  # normal to the back
    found = image(folder(tmp_path, (4, 10), axis="axial", slice=0, window=(-2000.0, 3000.0)))
    np.testing.assert_allclose(found[0], (CT_ZYX[:, -1] + 2000) / 5000, atol=1e-6)


def test_a_series_that_does_not_say_where_it_lies_has_only_stored_axes(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", CT_ZYX[0])
    assert "data.axis=z, y or x" in reason(folder(tmp_path, axis="axial"))


def test_frames_of_a_file_are_a_cine_or_slices(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", CT_ZYX)
    found = image(folder(tmp_path, frames=(1, 3)))
    np.testing.assert_array_equal(found, scale_to_unit(CT_ZYX[[1, 3]]))
    offsets = {"GridFrameOffsetVector": [0.0, 2.0, 4.0, 6.0]}
    where = {"ImagePositionPatient": [0, 0, 0], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
    write_dicom(tmp_path / "a.dcm", CT_ZYX, **offsets, **where)
    found = image(folder(tmp_path, slice=3))
    np.testing.assert_array_equal(found, scale_to_unit(CT_ZYX[3:]))


def functional(z: int) -> pydicom.Dataset:
    """What an enhanced file says of one of its frames."""
    group = pydicom.Dataset()
    position, window, scale = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    position.ImagePositionPatient = [0, 0, -z]  # they run down, and are to be shown upwards
    window.WindowCenter, window.WindowWidth = 100 * z, 500
    scale.RescaleSlope, scale.RescaleIntercept = 2, z
    group.PlanePositionSequence = [position]
    group.FrameVOILUTSequence = [window]
    group.PixelValueTransformationSequence = [scale]
    return group


def test_frames_of_an_enhanced_file_have_their_own_place_scale_and_window(tmp_path: Path) -> None:
    shared, plane = pydicom.Dataset(), pydicom.Dataset()
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PlaneOrientationSequence = [plane]
    write_dicom(
        tmp_path / "a.dcm",
        CT_ZYX,
        SharedFunctionalGroupsSequence=[shared],
        PerFrameFunctionalGroupsSequence=[functional(z) for z in range(4)],
    )
    values = CT_ZYX[1] * 2.0 + 1  # the second from below is the last but one of the file
    expected = ((values - 99.5) / 499 + 0.5).clip(0, 1)
    np.testing.assert_allclose(image(folder(tmp_path, slice=2))[0], expected, atol=1e-6)


def test_records_are_series_by_folder_or_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    write_series(tmp_path / "test/ill/p1/t1", CT_ZYX, series="1.1")
    write_series(tmp_path / "test/ill/p1/mixed", CT_ZYX, series="1.2")
    write_dicom(tmp_path / "test/ill/p1/mixed/1.2.840.7", CT_ZYX[0], series="1.3")
    write_dicom(tmp_path / "test/well/p2.dcm", CT_ZYX[0], series="1.4")
    (tmp_path / "test/ill/p1/t1/DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(99))
    (tmp_path / "test/ill/p1/t1/notes.txt").write_text("a note that is long enough " * 9)
    catalog = folder(tmp_path).scan()
    assert ids(catalog) == {
        "test": ["ill/p1/mixed/1.2.840.7", "ill/p1/mixed/im001", "ill/p1/t1", "well/p2"]
    }
    assert f"Data: 1 file below {tmp_path / 'test'} is no DICOM picture" in caplog.text
    assert catalog.classes == ("ill", "well")
    assert [r.label for r in read(folder(tmp_path))] == [0, 0, 0, 1]  # type: ignore[union-attr]
    by_file = ids(folder(tmp_path, record="file").scan())["test"]
    assert by_file[:2] == ["ill/p1/mixed/1.2.840.7", "ill/p1/mixed/im001"]
    assert len(by_file) == 10


def test_a_folder_whose_name_lies_between_two_files_does_not_part_a_series(tmp_path: Path) -> None:
    write_series(tmp_path / "p1", CT_ZYX, series="1.1")
    write_series(tmp_path / "p1" / "im001-derived", CT_ZYX[:2], series="1.2")
    assert ids(folder(tmp_path, class_folders=False).scan()) == {"test": ["p1", "p1/im001-derived"]}


def test_slices_of_a_series_are_records(tmp_path: Path) -> None:
    write_series(tmp_path / "p/s", CT_ZYX)
    source = folder(tmp_path, expand="slices")
    assert ids(source.scan()) == {"test": [f"p/s_{z:03d}" for z in range(4)]}
    for z, record in enumerate(read(source)):
        assert isinstance(record, Sample)
        np.testing.assert_array_equal(record.image_CHW, scale_to_unit(CT_ZYX[z : z + 1]))


def test_nothing_of_the_patient_is_in_what_a_scan_and_a_read_give(tmp_path: Path) -> None:
    write_series(tmp_path / "p/s", CT_ZYX)
    cut = write_dicom(tmp_path / "p/t/x.dcm", CT_ZYX[0], series="1.7")
    cut.write_bytes(cut.read_bytes()[:-30])
    source = folder(tmp_path)
    catalog = source.scan()
    listing = catalog.splits["test"].read(0, 2)  # type: ignore[attr-defined]
    told = repr((catalog, listing, read(source, catalog)))
    assert PATIENT not in told
    assert PATIENT_ID not in told


def test_an_element_is_in_ids_where_it_is_asked_for(tmp_path: Path) -> None:
    write_series(tmp_path / "p/s", CT_ZYX)
    assert ids(folder(tmp_path, id_tag="PatientID").scan()) == {"test": [f"{PATIENT_ID}/p/s"]}
    with pytest.raises(ConfigError, match=r"id_tag=PatientId is no keyword.*PatientID"):
        folder(tmp_path, id_tag="PatientId").scan()


def test_it_says_what_to_install_where_pydicom_is_missing(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", CT_ZYX[0])
    script = (
        "import sys; sys.modules['pydicom'] = None\n"
        "from artifactgen.data.dicom_folder import DicomFolder\n"
        f"DicomFolder(root={str(tmp_path)!r}).scan()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.rstrip().endswith(
        "ConfigError: DICOM files are read by pydicom, which is not installed: pip install pydicom"
    )


@pytest.mark.parametrize(
    ("name", "packages"),
    [
        ("JPEG-lossy", "pylibjpeg pylibjpeg-libjpeg"),
        ("SC_rgb_jpeg_gdcm", "pylibjpeg pylibjpeg-libjpeg"),
        ("JPEGLSNearLossless_08", "pylibjpeg pylibjpeg-libjpeg"),
        ("GDCMJ2K_TextGBR", "pylibjpeg pylibjpeg-openjpeg"),
    ],
)
def test_it_says_what_decompresses_a_file(tmp_path: Path, name: str, packages: str) -> None:
    (tmp_path / "a.dcm").write_bytes((OWN / f"{name}.dcm").read_bytes())
    found = reason(folder(tmp_path))
    assert "is decompressed by nothing that is installed" in found
    assert found.endswith(f"pip install {packages}")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def _half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def without(*names: str) -> Callable[[Path], None]:
    return elements(**dict.fromkeys(names))


def elements(**values: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        dataset = pydicom.dcmread(path)
        for name, value in values.items():
            if value is None:
                del dataset[name]
            else:
                setattr(dataset, name, value)
        dataset.save_as(path)

    return change


BROKEN = {
    "cut": (_cut, "pixels cannot be decoded"),
    "cut in the header": (_half, "a DICOM picture without Rows"),
    "no rows": (without("Rows"), "a DICOM picture without Rows"),
    "no bits": (without("BitsAllocated"), "Bits Allocated"),
    "no photometric interpretation": (without("PhotometricInterpretation"), "Photometric"),
    "no pixels": (without("PixelData"), "no pixel data to decode"),
    "too many rows": (elements(Rows=60_000, Columns=60_000), "more than data.max_pixels"),
    "more rows than pixels": (elements(Rows=13), "pixels cannot be decoded"),
    "odd bits": (elements(BitsAllocated=13), "Bits Allocated"),
    "no frames": (elements(NumberOfFrames=-3), "Rows, Columns or frames"),
}


@pytest.mark.parametrize(("damage", "why"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_a_failure_beside_a_good_one(
    tmp_path: Path, damage: Callable[[Path], None], why: str
) -> None:
    write_dicom(tmp_path / "b.dcm", CT_ZYX[0], series="1.8")
    damage(write_dicom(tmp_path / "a.dcm", CT_ZYX[0], series="1.9"))
    bad, good = read(folder(tmp_path))
    assert isinstance(bad, Failure)
    assert bad.record_id == "a"
    assert why in bad.reason
    assert isinstance(good, Sample)


def test_slices_of_another_size_fail_only_where_they_are_needed(tmp_path: Path) -> None:
    paths = write_series(tmp_path, CT_ZYX)
    elements(Rows=10, Columns=12)(paths[3])
    assert isinstance(read(folder(tmp_path, slice=1))[0], Sample)
    assert "(12, 10) in the first file of the series" in reason(folder(tmp_path, slice=3))


def test_a_report_is_no_record_and_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes((OWN / "test-SR.dcm").read_bytes())
    with pytest.raises(DataError, match="There is no DICOM picture below"):
        folder(tmp_path).scan()
