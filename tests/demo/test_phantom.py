from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from statistics import mean

import nibabel as nib
import numpy as np
import pytest

from artifactgen.demo.anatomy import GROUPS
from artifactgen.demo.imaging import LV_CAVITY, MYOCARDIUM, RV_CAVITY
from artifactgen.demo.phantom import Phantom, write_phantoms
from artifactgen.errors import DataError
from artifactgen.types import Sample

TRAINING, TESTING = 10, 5


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom") / "data"
    write_phantoms(root, training=TRAINING, testing=TESTING)
    return root


def patients(root: Path) -> list[Path]:
    return sorted(root.glob("*/patient*"))


def info(patient: Path) -> dict[str, str]:
    lines = (patient / "Info.cfg").read_text().splitlines()
    return dict(line.split(": ") for line in lines)


def groups(split: Path) -> list[str]:
    return [info(patient)["Group"] for patient in sorted(split.iterdir())]


def load(patient: Path, ending: str) -> nib.Nifti1Image:
    return nib.load(patient / f"{patient.name}_{ending}.nii.gz")


def voxels(patient: Path, ending: str) -> np.ndarray:
    return np.asarray(load(patient, ending).dataobj)


def frames(patient: Path) -> tuple[str, str]:
    return tuple(f"frame{int(info(patient)[key]):02d}" for key in ("ED", "ES"))


def digests(root: Path) -> dict[str, str]:
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def volumes_ml(patient: Path) -> dict[str, float]:
    """Volumes as a cardiologist takes them from the labels."""
    ed, es = (voxels(patient, f"{frame}_gt") for frame in frames(patient))
    ml = float(np.prod(load(patient, "4d").header.get_zooms()[:3])) / 1000
    lv_ed, lv_es = (float((labels == LV_CAVITY).sum()) * ml for labels in (ed, es))
    return {
        "lv_ed": lv_ed,
        "ejection": 1 - lv_es / lv_ed,
        "rv_ed": float((ed == RV_CAVITY).sum()) * ml,
        "muscle": float((ed == MYOCARDIUM).sum()) * ml,
        "wall_mm": wall_mm(ed, load(patient, "4d").header.get_zooms()[0]),
    }


def wall_mm(labels_XYZ: np.ndarray, spacing_mm: float) -> float:
    """Thickness of the ring in the middle slice, from the areas of its inner and outer circle."""
    middle = labels_XYZ[:, :, labels_XYZ.shape[2] // 2]
    inner, ring = ((middle == label).sum() for label in (LV_CAVITY, MYOCARDIUM))
    radii = np.sqrt(np.array([inner, inner + ring]) / np.pi)
    return float(radii[1] - radii[0]) * float(spacing_mm)


def test_layout_is_that_of_the_release(root: Path) -> None:
    expected = {f"training/patient{n:03d}" for n in range(1, TRAINING + 1)}
    expected |= {f"testing/patient{n:03d}" for n in range(TRAINING + 1, TRAINING + TESTING + 1)}
    assert {str(path.relative_to(root)) for path in patients(root)} == expected
    for patient in patients(root):
        names = ["4d", *frames(patient), *(f"{frame}_gt" for frame in frames(patient))]
        files = {f"{patient.name}_{name}.nii.gz" for name in names} | {"Info.cfg"}
        assert {path.name for path in patient.iterdir()} == files


def test_info_names_frames_that_exist_and_groups_are_even(root: Path) -> None:
    for patient in patients(root):
        facts = info(patient)
        assert list(facts) == ["ED", "ES", "Group", "Height", "NbFrame", "Weight"]
        assert facts["ED"] == "1"
        assert 3 <= int(facts["ES"]) <= int(facts["NbFrame"])
    for split, count in (("training", TRAINING), ("testing", TESTING)):
        assert Counter(groups(root / split)) == dict.fromkeys(GROUPS, count // len(GROUPS))
    assert groups(root / "training") != list(GROUPS) * (TRAINING // len(GROUPS)), "not shuffled"


def test_headers_are_valid_and_vary(root: Path) -> None:
    shapes, spacings = set(), set()
    for patient in patients(root):
        image = load(patient, "4d")
        facts = info(patient)
        x, y, z, t = image.shape
        assert image.get_data_dtype() == np.int16
        assert 128 <= min(x, y) <= max(x, y) <= 160
        assert 6 <= z <= 9
        assert t == int(facts["NbFrame"])
        zooms = image.header.get_zooms()
        assert zooms[0] == zooms[1]
        assert 0.5 < zooms[3] * t < 1.2, "one heart beat in seconds"
        assert image.header.get_xyzt_units() == ("mm", "sec")
        assert np.allclose(np.abs(np.diag(image.affine)[:3]), zooms[:3])
        shapes.add(image.shape)
        spacings.add(zooms[0])
    assert len(shapes) > TRAINING // 2
    assert len(spacings) > TRAINING // 2


def test_still_frames_are_frames_of_the_cine(root: Path) -> None:
    for patient in patients(root):
        cine = voxels(patient, "4d")
        for frame in frames(patient):
            still = voxels(patient, frame)
            assert np.array_equal(still, cine[..., int(frame[-2:]) - 1])
            labels = load(patient, f"{frame}_gt")
            assert labels.get_data_dtype() == np.uint8
            assert labels.shape == still.shape
            assert set(np.unique(labels.dataobj)) == {0, RV_CAVITY, MYOCARDIUM, LV_CAVITY}


def test_blood_is_bright_and_muscle_dark(root: Path) -> None:
    for patient in patients(root):
        still, labels = voxels(patient, "frame01"), voxels(patient, "frame01_gt")
        assert still[labels == LV_CAVITY].mean() > 2 * still[labels == MYOCARDIUM].mean()
        assert still.min() >= 0


def test_es_is_the_smallest_cavity_of_the_cine(root: Path) -> None:
    """Bright pixels within the epicardium: fewest at ES, as many at ED as there ever are."""
    for patient in patients(root):
        cine = voxels(patient, "4d")
        heart = voxels(patient, "frame01_gt") >= MYOCARDIUM
        bright = cine[heart] > np.percentile(cine[heart], 95) / 2
        by_frame = bright.sum(axis=0)
        es = int(info(patient)["ES"]) - 1
        assert by_frame[es] <= by_frame.min() * 1.02
        assert by_frame[0] >= by_frame.max() * 0.98


def test_groups_differ_as_their_definitions_do(root: Path) -> None:
    found = defaultdict(list)
    for patient in patients(root):
        found[info(patient)["Group"]].append(volumes_ml(patient))
    by_group = {
        group: {key: mean(row[key] for row in rows) for key in rows[0]}
        for group, rows in found.items()
    }
    dcm, hcm, minf, nor, rv = (by_group[group] for group in ("DCM", "HCM", "MINF", "NOR", "RV"))
    assert dcm["ejection"] < 0.4
    assert minf["ejection"] < 0.5
    assert dcm["ejection"] < minf["ejection"] < nor["ejection"] < hcm["ejection"]
    assert dcm["lv_ed"] > 1.3 * nor["lv_ed"]
    assert dcm["wall_mm"] < nor["wall_mm"] < 0.7 * hcm["wall_mm"]
    assert hcm["muscle"] > 1.5 * nor["muscle"]
    assert all(rv["rv_ed"] > 1.2 * other["rv_ed"] for other in (dcm, hcm, minf, nor))


def test_same_seed_same_bytes_other_seed_other_bytes(root: Path, tmp_path: Path) -> None:
    write_phantoms(tmp_path / "a" / "again", training=TRAINING, testing=TESTING)
    assert digests(tmp_path / "a" / "again") == digests(root)
    write_phantoms(tmp_path / "other", training=2, testing=1, seed=1)
    images = {name: digest for name, digest in digests(tmp_path / "other").items() if "4d" in name}
    assert not set(images.values()) & set(digests(root).values())


def test_taken_root_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("do not lose me")
    with pytest.raises(DataError, match="not empty"):
        write_phantoms(tmp_path, training=1, testing=0)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_empty_root_is_filled(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_phantoms(tmp_path / "data", training=1, testing=0)
    assert len(patients(tmp_path / "data")) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_root_that_cannot_be_written_is_a_data_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        write_phantoms(tmp_path / "file" / "data", training=1, testing=0)


def test_killed_generator_leaves_no_half_data_set(tmp_path: Path) -> None:
    root = tmp_path / "data"
    code = f"from artifactgen.demo.phantom import write_phantoms; write_phantoms({str(root)!r})"
    process = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".data-*.partial/training/patient002")):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not root.exists()
    catalog = Phantom(root=str(root), image_size=(32, 32), training=5, testing=5).scan()
    assert len(catalog.splits["test"]) == 5


def test_source_makes_data_once_and_reads_it(tmp_path: Path) -> None:
    source = Phantom(root=str(tmp_path / "data"), image_size=(64, 64), training=10, testing=5)
    catalog = source.scan()
    before = {path: path.stat().st_mtime_ns for path in Path(source.root).rglob("*")}
    assert source.scan() == catalog
    assert {path: path.stat().st_mtime_ns for path in Path(source.root).rglob("*")} == before
    lengths = {name: len(index) for name, index in catalog.splits.items()}
    assert lengths["train"] + lengths["val"] == 10
    assert lengths["test"] == 5
    for sample in source.read(catalog, "test", 0, 5):
        assert isinstance(sample, Sample)
        assert sample.image_CHW.shape == (3, 64, 64)
        group = info(tmp_path / "data" / "testing" / sample.record_id)["Group"]
        assert catalog.classes[sample.label] == group


def test_source_does_not_touch_what_is_no_release(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("do not lose me")
    with pytest.raises(DataError):
        Phantom(root=str(tmp_path), training=1, testing=0).scan()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
