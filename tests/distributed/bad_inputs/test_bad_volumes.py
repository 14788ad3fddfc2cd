"""Rows 4 and 5: NIfTI files that are broken or lie, patients of ACDC that lack something."""

from __future__ import annotations

import gzip
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from helpers.broken import assert_others_equal, assert_refused, failures, peak_growth
from helpers.workspace import Outcome, Workspace

RUN = ("experiment=embeddings/tiny", "ckpt_path=model.ckpt", "model.num_classes=3")
DIM, AFFINE, SLOPE = 40, 280, 112
"""Bytes of the header: dim, srow_x, scl_slope."""


def in_header(offset: int, layout: str, *values: float) -> Callable[[bytes], bytes]:
    def patch(packed: bytes) -> bytes:
        plain = bytearray(gzip.decompress(packed))
        struct.pack_into(layout, plain, offset, *values)
        return gzip.compress(plain, 1)

    return patch


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut": (lambda packed: packed[: len(packed) // 2], "cut short"),
    "checksum": (lambda packed: packed[:-8] + b"\1\2\3\4" + packed[-4:], "CRC"),
    "short": (lambda packed: gzip.compress(bytes(300)), "too short for a NIfTI header: 300 of 348"),
    "empty": (lambda packed: b"", "too short for a NIfTI header: 0 of 348"),
    "page": (lambda packed: b"<html>404</html>" * 40, "not a single-file NIfTI-1 header"),
    "giant": (
        in_header(DIM, "8h", 4, 32767, 32767, 32767, 4, 1, 1, 1),
        r"32,767 × 32,767 = 1,073,676,289 pixels are more than data\.max_pixels|header claims",
    ),
    "deep": (
        in_header(DIM, "8h", 4, 9000, 9000, 32767, 4, 1, 1, 1),
        "the header claims 21,233,016,000,352 bytes .* a file of this size holds at most",
    ),
    "flat": (in_header(DIM, "8h", 2, 40, 36, 1, 1, 1, 1, 1), r"2-D of shape .* expected 4-D"),
    "five": (in_header(DIM, "8h", 5, 4, 4, 3, 4, 2, 1, 1), r"5-D of shape .* expected 4-D"),
    "hollow": (in_header(DIM, "8h", 4, 40, 36, 0, 4, 1, 1, 1), "no voxels: shape"),
    "affine": (in_header(AFFINE, "f", float("nan")), "NaN or Inf in the affine"),
    "nan": (in_header(SLOPE, "f", 1e38), "NaN or Inf among the pixels"),
}
"""Ids of patients, what is wrong with their cine, and why it fails."""


def write_patient(root: Path, name: str, *, group: str = "NOR", slope: float | None = None) -> Path:
    rng = np.random.default_rng(sum(name.encode()))
    cine = nib.Nifti1Image(rng.integers(1, 900, (40, 36, 3, 4)).astype(np.int16), np.eye(4))
    if slope is not None:
        cine.header.set_slope_inter(slope, 0)
    folder = root / "testing" / name
    folder.mkdir(parents=True)
    path = folder / f"{name}_4d.nii.gz"
    nib.save(cine, path)
    (folder / "Info.cfg").write_text(f"ED: 1\nES: 4\nGroup: {group}\nNbFrame: 4\n")
    return path


@dataclass(frozen=True)
class Ran:
    root: Path
    outcome: Outcome
    growth: int


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, tiny) -> Ran:
    """One run with every broken cine between good ones, and a clean one."""
    root = tmp_path_factory.mktemp("volumes")
    workspace: Workspace = tiny(root, "cmr_acdc")
    for place in ("acdc", "clean_acdc"):
        for number in range(4):
            write_patient(root / place, f"a{number}")
        for name in BROKEN:
            path = write_patient(root / place, name)
            if place == "acdc":
                path.write_bytes(BROKEN[name][0](path.read_bytes()))
    path = write_patient(root / "acdc", "zero")
    path.write_bytes(in_header(SLOPE, "f", 0)(path.read_bytes()))
    write_patient(root / "clean_acdc", "zero")
    clean = workspace.run(*RUN, "data.root=clean_acdc", "output_dir=clean")
    assert clean.exit_code == 0, clean.text
    told: list[Outcome] = []
    growth = peak_growth(
        lambda: told.append(workspace.run(*RUN, "data.root=acdc", "output_dir=out"))
    )
    return Ran(root, told[0], growth)


def test_the_run_is_complete_with_flat_memory(ran: Ran) -> None:
    assert ran.outcome.exit_code == 0, ran.outcome.text
    assert f"{len(BROKEN)} failed" in ran.outcome.text
    assert "Traceback" not in ran.outcome.text
    assert ran.growth < 250e6


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_cine_fails_with_its_reason(ran: Ran, name: str) -> None:
    reason = failures(ran.root / "out")[name]
    assert re.search(BROKEN[name][1], reason), reason
    assert f"{name}_4d.nii.gz: " in reason


def test_the_good_and_slope_zero_are_equal_to_the_bit(ran: Ran) -> None:
    """A slope of 0 means "not scaled" in the standard."""
    assert_others_equal(ran.root / "out", ran.root / "clean", BROKEN)


def rewrite(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(old, new))


PATIENTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no Info.cfg": (lambda folder: (folder / "Info.cfg").unlink(), "no Info.cfg"),
    "no cine": (lambda folder: (folder / "a2_4d.nii.gz").unlink(), r"no a2_4d\.nii\.gz"),
    "ES outside": (
        lambda folder: rewrite(folder / "Info.cfg", "ES: 4", "ES: 9"),
        "ED=1, ES=9 outside its 4 frames",
    ),
    "ED outside": (
        lambda folder: rewrite(folder / "Info.cfg", "ED: 1", "ED: 0"),
        r"ED: 0 in Info\.cfg is no frame number \(from 1\)",
    ),
    "unknown group": (
        lambda folder: rewrite(folder / "Info.cfg", "NOR", "XYZ"),
        r"group XYZ is none of DCM, HCM, MINF, NOR, RV; see data\.classes",
    ),
}


@pytest.mark.parametrize("what", PATIENTS)
def test_a_patient_that_cannot_be_used_is_named(tmp_path: Path, tiny, what: str) -> None:
    damage, told = PATIENTS[what]
    workspace: Workspace = tiny(tmp_path, "cmr_acdc")
    for name in ("a1", "a2", "a3"):
        write_patient(tmp_path / "acdc", name)
    damage(tmp_path / "acdc" / "testing" / "a2")
    outcome = workspace.run(*RUN, "data.root=acdc", "output_dir=out")
    told = rf"acdc: 1 patients cannot be used:\n  testing/a2: {told}"
    assert_refused(outcome, told, tmp_path / "out")


def test_frames_that_only_the_cine_lacks_are_a_failure(ran: Ran, tmp_path: Path, tiny) -> None:
    workspace: Workspace = tiny(tmp_path, "cmr_acdc")
    for place in ("acdc", "clean_acdc"):
        for name in ("a1", "a2", "a3"):
            write_patient(tmp_path / place, name)
    info = tmp_path / "acdc" / "testing" / "a2" / "Info.cfg"
    info.write_text(info.read_text().replace("NbFrame: 4", "NbFrame: 9").replace("ES: 4", "ES: 7"))
    for place, output in (("acdc", "out"), ("clean_acdc", "clean")):
        outcome = workspace.run(*RUN, f"data.root={place}", f"output_dir={output}")
        assert outcome.exit_code == 0, outcome.text
    assert "no frame 7, it has 4 frames" in failures(tmp_path / "out")["a2"]
    assert_others_equal(tmp_path / "out", tmp_path / "clean", ["a2"])
