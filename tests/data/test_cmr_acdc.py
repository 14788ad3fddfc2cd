from __future__ import annotations

import json
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from artifactgen.data.cmr_acdc import CmrAcdc
from artifactgen.data.image import resize
from artifactgen.errors import ConfigError, DataError
from artifactgen.types import Failure, Sample


def ids(source: CmrAcdc) -> dict[str, list[str]]:
    splits = source.scan().splits
    return {name: list(index.record_ids(0, len(index))) for name, index in splits.items()}


def read_one(source: CmrAcdc, split: str = "test", row: int = 0) -> Sample:
    (sample,) = source.read(source.scan(), split, row, row + 1)
    assert isinstance(sample, Sample), sample
    return sample


def test_channels_are_end_diastole_midway_and_end_systole_of_the_middle_slice(
    tmp_path: Path, write_patient
) -> None:
    x, y, z, t = np.indices((4, 6, 5, 9))
    voxels = (x + 10 * y + 1000 * z + 100 * t * (x == 0)).astype(np.int16)
    write_patient(tmp_path / "testing", "p1", voxels_XYZT=voxels, ed=2, es=9, group="MINF")
    sample = read_one(CmrAcdc(root=str(tmp_path), image_size=(6, 4)))
    assert (sample.record_id, sample.row, sample.label) == ("p1", 0, 2)
    assert sample.image_CHW.dtype == np.float32
    for channel, frame in enumerate((1, 4, 8)):  # 1-based 2, (2 + 9) // 2 = 5, 9
        stored_YX = voxels[:, :, 2, frame].T.astype(np.float64)
        scaled = (stored_YX - stored_YX.min()) / np.ptp(stored_YX)
        assert np.array_equal(sample.image_CHW[channel], scaled.astype(np.float32))


def test_the_crop_is_in_pixels_of_the_file_and_is_then_resized(
    tmp_path: Path, write_patient
) -> None:
    voxels = np.random.default_rng(0).integers(0, 99, (20, 16, 1, 3)).astype(np.int16)
    write_patient(tmp_path / "testing", "p1", voxels_XYZT=voxels, ed=1, es=3)
    cropped = read_one(CmrAcdc(root=str(tmp_path), image_size=(8, 8))).image_CHW
    inner = voxels[6:14, 4:12, 0, 0].T
    assert np.allclose(cropped[0], (inner - inner.min()) / np.ptp(inner))
    half = read_one(CmrAcdc(root=str(tmp_path), image_size=(4, 4), crop_size=8)).image_CHW
    assert np.array_equal(half, resize(cropped, (4, 4)))


def test_a_constant_image_gives_zeros(tmp_path: Path, write_patient) -> None:
    write_patient(tmp_path / "testing", "p1", voxels_XYZT=np.full((8, 8, 2, 5), 7, np.int16))
    assert not read_one(CmrAcdc(root=str(tmp_path), image_size=(8, 8))).image_CHW.any()


def test_the_catalog_of_a_release(acdc_root: Path) -> None:
    catalog = CmrAcdc(root=str(acdc_root)).scan()
    assert catalog.classes == ("DCM", "HCM", "MINF", "NOR", "RV")
    assert catalog.frame_names == ("ED", "mid", "ES")
    assert catalog.channels == 3
    assert {name: len(index) for name, index in catalog.splits.items()} == {
        "train": 8,
        "val": 2,
        "test": 3,
    }


def test_the_split_is_stratified_and_the_same_for_ever(acdc_root: Path) -> None:
    assert ids(CmrAcdc(root=str(acdc_root)))["val"] == ["patient007", "patient010"]
    assert ids(CmrAcdc(root=str(acdc_root), seed=1))["val"] != ["patient007", "patient010"]


def test_a_new_group_moves_no_patient_of_another(acdc_root: Path, write_patient) -> None:
    before = set(ids(CmrAcdc(root=str(acdc_root)))["val"])
    for i in range(20, 30):
        write_patient(acdc_root / "training", f"patient{i:03d}", group="NOR")
    after = ids(CmrAcdc(root=str(acdc_root)))["val"]
    assert {name for name in after if name < "patient020"} == before
    assert len(after) == len(before) + 2


@pytest.mark.parametrize(("fraction", "n_val"), [(0.0, 0), (0.5, 6), (1.0, 10)])
def test_val_fraction_is_rounded_within_each_group(
    acdc_root: Path, fraction: float, n_val: int
) -> None:
    found = ids(CmrAcdc(root=str(acdc_root), val_fraction=fraction))
    assert (len(found["val"]), len(found["train"])) == (n_val, 10 - n_val)


def test_a_val_fraction_that_is_no_share_is_refused(acdc_root: Path) -> None:
    with pytest.raises(ConfigError, match="val_fraction"):
        CmrAcdc(root=str(acdc_root), val_fraction=1.5).scan()


def test_classes_set_the_order_of_labels(acdc_root: Path) -> None:
    source = CmrAcdc(root=str(acdc_root), image_size=(8, 8), classes=("RV", "HCM", "DCM"))
    assert source.scan().classes == ("RV", "HCM", "DCM")
    assert read_one(source).label == 1


def test_a_release_without_one_of_the_folders_lacks_its_splits(acdc_root: Path) -> None:
    shutil.rmtree(acdc_root / "testing")
    assert set(ids(CmrAcdc(root=str(acdc_root)))) == {"train", "val"}


def test_testing_may_withhold_the_diagnosis_but_training_may_not(
    tmp_path: Path, write_patient
) -> None:
    write_patient(tmp_path / "testing", "p1", group=None)
    assert read_one(CmrAcdc(root=str(tmp_path), image_size=(8, 8))).label == -1
    write_patient(tmp_path / "training", "p2", group=None)
    with pytest.raises(DataError, match="training/p2: no Group"):
        CmrAcdc(root=str(tmp_path)).scan()


def test_an_inner_database_folder_is_the_same_release(acdc_root: Path, tmp_path: Path) -> None:
    plain = CmrAcdc(root=str(acdc_root)).scan()
    newer = tmp_path / "newer"
    newer.mkdir()
    acdc_root.rename(newer / "database")
    moved = CmrAcdc(root=str(newer), image_size=(8, 8))
    assert moved.scan().identity == plain.identity
    assert read_one(moved).record_id == "patient101"


def test_identity_follows_the_data_and_not_the_preprocessing(
    acdc_root: Path, write_patient
) -> None:
    plain = CmrAcdc(root=str(acdc_root)).scan().identity
    same = CmrAcdc(root=str(acdc_root), image_size=(4, 4), crop_size=3)
    assert same.scan().identity == plain
    assert CmrAcdc(root=str(acdc_root), val_fraction=0.4).scan().identity != plain
    info = acdc_root / "testing/patient101/Info.cfg"
    info.write_text(info.read_text().replace("HCM", "NOR"))
    assert CmrAcdc(root=str(acdc_root)).scan().identity != plain


def test_splits_json_replaces_the_rule(acdc_root: Path) -> None:
    listed = {"dev": ["patient103", "patient001"], "test": []}
    (acdc_root / "splits.json").write_text(json.dumps(listed))
    assert ids(CmrAcdc(root=str(acdc_root))) == {"dev": ["patient001", "patient103"], "test": []}


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ({"train": ["patient001", "nobody"]}, "nobody: no such patient"),
        ({"train": ["patient001", "patient001"]}, "patient001: listed 2 times"),
        ({"train": ["patient001"], "val": ["patient001"]}, "patient001: listed 2 times"),
        ({"train": "patient001"}, "expected"),
        ({"train": [1]}, "expected"),
        (["patient001"], "expected"),
    ],
)
def test_a_wrong_splits_json_is_refused(acdc_root: Path, listed: object, reason: str) -> None:
    (acdc_root / "splits.json").write_text(json.dumps(listed))
    with pytest.raises(DataError, match=reason):
        CmrAcdc(root=str(acdc_root)).scan()


def test_a_splits_json_that_is_no_json_is_refused(acdc_root: Path) -> None:
    (acdc_root / "splits.json").write_bytes(b"\xff{")
    with pytest.raises(DataError, match=r"splits\.json is no JSON"):
        CmrAcdc(root=str(acdc_root)).scan()


def test_only_the_first_five_wrong_ids_are_named(acdc_root: Path) -> None:
    (acdc_root / "splits.json").write_text(json.dumps({"train": [f"x{i}" for i in range(9)]}))
    with pytest.raises(DataError, match="9 ids are wrong") as caught:
        CmrAcdc(root=str(acdc_root)).scan()
    assert "x4" in str(caught.value)
    assert "x5" not in str(caught.value)


@pytest.mark.parametrize("make", [lambda root: None, lambda root: root.mkdir()])
def test_a_missing_release_shows_the_layout_expected(tmp_path: Path, make) -> None:
    make(tmp_path / "none")
    with pytest.raises(DataError, match=r"data\.root.*\n.*training/patient001.*\n.*testing"):
        CmrAcdc(root=str(tmp_path / "none")).scan()


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        ("", "no ED in Info.cfg"),
        ("ED: 1\nES: 3\nGroup: NOR", "no NbFrame"),
        ("ED: 1\nES: 6\nNbFrame: 5\nGroup: NOR", "ES=6 outside its 5 frames"),
        ("ED: 0\nES: 3\nNbFrame: 5\nGroup: NOR", "ED: 0"),
        ("ED: one\nES: 3\nNbFrame: 5\nGroup: NOR", "ED: one"),
        ("ED: 1\nES: 3\nNbFrame: 5\nGroup: FLU", "group FLU is none of DCM"),
    ],
)
def test_a_patient_with_a_wrong_info_is_named(
    acdc_root: Path, write_patient, info: str, reason: str
) -> None:
    write_patient(acdc_root / "training", "patient077", info=info)
    with pytest.raises(DataError, match=f"1 patients.*\n.*training/patient077: .*{reason}"):
        CmrAcdc(root=str(acdc_root)).scan()


@pytest.mark.parametrize(
    ("name", "reason"), [("Info.cfg", "no Info.cfg"), ("patient101_4d.nii.gz", "no patient101_4d")]
)
def test_a_patient_without_a_file_is_named(acdc_root: Path, name: str, reason: str) -> None:
    (acdc_root / "testing/patient101" / name).unlink()
    with pytest.raises(DataError, match=f"testing/patient101: {reason}"):
        CmrAcdc(root=str(acdc_root)).scan()


def test_a_patient_in_training_and_testing_is_named(acdc_root: Path) -> None:
    shutil.copytree(acdc_root / "testing/patient101", acdc_root / "training/patient101")
    with pytest.raises(DataError, match="patient101: twice"):
        CmrAcdc(root=str(acdc_root)).scan()


def test_frames_that_only_the_image_lacks_are_a_failure(acdc_root: Path) -> None:
    info = acdc_root / "testing/patient102/Info.cfg"
    info.write_text("ED: 1\nES: 30\nNbFrame: 30\nGroup: HCM")
    source = CmrAcdc(root=str(acdc_root), image_size=(8, 8))
    first, second, third = source.read(source.scan(), "test", 0, 3)
    assert isinstance(second, Failure)
    assert (second.record_id, second.row, second.stage) == ("patient102", 1, "read")
    assert "it has 5 frames" in second.reason
    assert isinstance(first, Sample)
    assert isinstance(third, Sample)


def test_a_pickled_source_reads_the_same_from_two_threads(acdc_root: Path) -> None:
    source = CmrAcdc(root=str(acdc_root), image_size=(9, 7))
    catalog = source.scan()
    copy, catalog_copy = pickle.loads(pickle.dumps((source, catalog)))
    expected = [sample.image_CHW.tobytes() for sample in source.read(catalog, "train", 0, 8)]

    def read(_: int) -> list[bytes]:
        return [sample.image_CHW.tobytes() for sample in copy.read(catalog_copy, "train", 0, 8)]

    with ThreadPoolExecutor(2) as pool:
        assert all(found == expected for found in pool.map(read, range(6)))
