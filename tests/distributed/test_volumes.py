"""Volumes and tables of them through the whole program."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel as nib
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from helpers.dicom import PATIENT, PATIENT_ID, write_series
from helpers.pictures import plain_model, user_folder
from helpers.workspace import EXPERIMENT, Workspace
from PIL import Image

from artifactgen import load_embeddings
from artifactgen.data.image import scale_to_unit

COMMAND = (EXPERIMENT, "ckpt_path=model.ckpt", "precision=32-true")
ONLY_EMBEDDINGS = ("generate_gradcam=false", "generate_attention=false")
VOLUMES = {
    f"{diagnosis}/p{i}": np.random.default_rng(i).integers(-900, 900, (64, 64, 5)).astype(np.int16)
    for diagnosis in ("ill", "well")
    for i in range(2)
}
"""By (x, y, z)."""


@pytest.fixture
def folder(tmp_path: Path) -> Workspace:
    """The same volumes as NIfTI, as DICOM, and in a table, and a checkpoint."""
    rows = [["path", "label"]]
    for name, voxels in VOLUMES.items():
        path = tmp_path / "nifti" / f"{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, np.diag([-1, -1, 1, 1])), path)
        write_series(tmp_path / "dicom" / name / "ct", voxels.T, series=f"1.{len(rows)}")
        rows.append([f"nifti/{name}.nii.gz", name.partition("/")[0]])
    with (tmp_path / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return user_folder(tmp_path, source="nifti_folder", batch_size=4, options="crop_pct: 1")


def expected_embeddings(folder: Workspace, z: int) -> torch.Tensor:
    """By timm alone, of a slice of each volume."""
    model = plain_model(folder)
    slices = [scale_to_unit(voxels[:, :, z].T[None]) for voxels in VOLUMES.values()]
    x_BCHW = torch.from_numpy(np.stack(slices)).expand(-1, 3, -1, -1)
    with torch.inference_mode():
        return model.forward_head(model.forward_features(x_BCHW), pre_logits=True)


SOURCES = {
    "nifti_folder": ["data.root=nifti"],
    "nifti_folder, axial": ["data.root=nifti", "data.axis=axial"],
    "dicom_folder": ["data.root=dicom"],
    "dicom_folder, axial": ["data.root=dicom", "data.axis=axial"],
    "manifest": ["data.path=table.csv"],
}


@pytest.mark.parametrize("source", SOURCES)
def test_embeddings_are_those_of_a_slice_of_each_volume(folder, source):
    data = [f"data={source.partition(',')[0]}", *SOURCES[source], "data.slice=-2"]
    outcome = folder.run(*COMMAND, *ONLY_EMBEDDINGS, *data)
    assert outcome.exit_code == 0, outcome.text
    found = load_embeddings(folder.output / "embeddings" / "test_embeddings.pt")
    torch.testing.assert_close(found.embeddings, expected_embeddings(folder, 3), rtol=0, atol=1e-5)
    assert found.labels.tolist() == [0, 0, 1, 1]
    assert found.classes == ["ill", "well"]


def test_nothing_of_the_patient_is_in_what_a_run_leaves(folder):
    options = ["data=dicom_folder", "data.root=dicom", "data.expand=slices"]
    broken = folder.root / "dicom/ill/p0/ct/im003"
    broken.write_bytes(broken.read_bytes()[:-99])
    outcome = folder.run(*COMMAND, *options, "max_failures=0.5")
    assert outcome.exit_code == 0, outcome.text
    manifest = pq.read_table(folder.output / "manifest.parquet").to_pylist()
    assert [row["record_id"] for row in manifest][:3] == [f"ill/p0/ct_{z:03d}" for z in range(3)]
    told = [outcome.text, repr(manifest)]
    for path in folder.output.rglob("*.png"):
        with Image.open(path) as picture:
            told.append(repr(picture.info))
    files = [path.read_bytes() for path in folder.output.rglob("*") if path.is_file()]
    for secret in (PATIENT, PATIENT_ID):
        assert not any(secret in text for text in told)
        assert not any(secret.encode() in content for content in files)


def test_pictures_are_drawn_over_the_stored_slice_where_that_is_asked_for(folder):
    data = ("data=nifti_folder", "data.root=nifti", "data.image_size=32", "limit=1")
    outcome = folder.run(*COMMAND, *data, "canvas=source", "generate_attention=false")
    assert outcome.exit_code == 0, outcome.text
    (path,) = (folder.output / "gradcam").glob("*p0/class_0.png")
    with Image.open(path) as picture:
        assert picture.size == (64, 64)


def test_frames_are_played(folder):
    cine = np.stack([VOLUMES["ill/p0"]] * 3, -1)
    nib.save(nib.Nifti1Image(cine, np.eye(4)), folder.root / "nifti/cine.nii.gz")
    frames = ("data=nifti_folder", "data.root=nifti", "data.pattern=cine*", "data.frames=[0,2,-1]")
    outcome = folder.run(*COMMAND, *frames, "generate_attention=false")
    assert outcome.exit_code == 0, outcome.text
    with Image.open(folder.output / "gradcam/cine/class_0.png") as picture:
        assert picture.n_frames == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["data.axis=transversal"],
            "data.axis=transversal: input should be 'z', 'y', 'x'",
        ),
        (["data.slice=1.5"], "data.slice=1.5: a share of the way lies between 0 and 1"),
        (["data.window=[5,1]"], "data.window=[5.0, 1.0]: [low,high], the first below the second"),
        (["data.expand=frames"], "data.expand=frames: input should be 'slices'"),
        (["data.pattern=*.mha"], "There is no volume (data.pattern=*.mha) below nifti."),
        (["data=manifest", "data.path=nowhere.csv"], "data.path=nowhere.csv: no such file."),
        (["data=manifest", "data.path=table.csv", "data.path_column=file"], "no column file."),
        (["data=dicom_folder", "data.root=dicom", "data.id_tag=Name"], "is no keyword of DICOM."),
        (["data=dicom_folder", "data.root=nifti"], "There is no DICOM picture below nifti."),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_what_is_wrong_is_said_before_any_work(folder, arguments, message):
    root = () if "data=manifest" in arguments else ("data.root=nifti",)
    outcome = folder.run(*COMMAND, *root, *arguments)
    assert (outcome.exit_code, message in outcome.text) == (2, True), outcome.text
    assert not folder.output.exists()
