"""Folders of pictures through the whole program: how they are framed is said, kept and decisive."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from helpers.pictures import plain_model, user_folder, write_pictures
from helpers.workspace import EXPERIMENT, Workspace, artifacts, write_checkpoint
from PIL import Image
from timm.data import create_transform

from artifactgen import load_embeddings
from distributed.usage import config_dir

PICTURES = {"train": 5, "val": 3, "test": 4}


@pytest.fixture
def folder(tmp_path: Path) -> Workspace:
    """A user's folder with pictures of many sizes in two classes."""
    write_pictures(tmp_path, PICTURES)
    return user_folder(tmp_path, source="image_folder", options="root: pictures")


COMMAND = (EXPERIMENT, "ckpt_path=model.ckpt", "precision=32-true")
ONLY_EMBEDDINGS = ("generate_gradcam=false", "generate_attention=false")


def expected_embeddings(folder: Workspace, **framing: object) -> torch.Tensor:
    """By timm alone: its transform, its model."""
    model = plain_model(folder)
    config = timm.data.resolve_data_config(model=model) | {"input_size": (3, 64, 64), **framing}
    transform = create_transform(**config)
    names = sorted((folder.root / "pictures" / "test").rglob("*.png"), key=str)
    x_BCHW = torch.stack([transform(Image.open(name)) for name in names])
    with torch.inference_mode():
        return model.forward_head(model.forward_features(x_BCHW), pre_logits=True)


@pytest.mark.parametrize(
    "framing",
    [
        {},
        {"crop_pct": 0.7},
        {"crop_mode": "squash"},
        {"crop_mode": "border", "interpolation": "bilinear"},
    ],
    ids=["as timm has it", "crop_pct", "crop_mode", "crop_mode and interpolation"],
)
def test_embeddings_are_those_of_timm_and_its_transform(folder, framing):
    asked = [f"data.{name}={value}" for name, value in framing.items()]
    outcome = folder.run(*COMMAND, *ONLY_EMBEDDINGS, *asked)
    assert outcome.exit_code == 0, outcome.text
    found = load_embeddings(folder.output / "embeddings" / "test_embeddings.pt")
    expected = expected_embeddings(folder, **framing)
    torch.testing.assert_close(found.embeddings, expected, rtol=0, atol=1e-5)
    assert found.meta["framing"]["crop_mode"] == framing.get("crop_mode", "center")
    assert found.meta["mean"] == [0.5] * 3
    run = json.loads((folder.output / "run.json").read_text())
    assert "crop_pct" in json.dumps(run["configuration"])


def test_how_pictures_are_framed_is_said(folder):
    outcome = folder.run(*COMMAND, "dry_run=true")
    assert "Pictures: bicubic, shorter side to 67 pixels, centre of 64 × 64" in outcome.text
    outcome = folder.run(*COMMAND, "dry_run=true", "data.crop_mode=squash", "data.crop_pct=1")
    assert "Pictures: bicubic, 64 × 64 pixels (crop_mode squash, crop_pct 1)" in outcome.text


def test_another_framing_is_another_run(folder):
    assert folder.run(*COMMAND, *ONLY_EMBEDDINGS).exit_code == 0
    assert "Complete: nothing to do" in folder.run(*COMMAND, *ONLY_EMBEDDINGS).text
    outcome = folder.run(*COMMAND, *ONLY_EMBEDDINGS, "data.interpolation=bilinear")
    assert outcome.exit_code == 2
    assert 'data.interpolation: not set → "bilinear"' in outcome.text


def test_a_new_picture_is_another_data_set(folder):
    assert folder.run(*COMMAND, *ONLY_EMBEDDINGS).exit_code == 0
    new = folder.root / "pictures" / "test" / "cat" / "new.png"
    Image.fromarray(np.zeros((70, 70, 3), np.uint8)).save(new)
    outcome = folder.run(*COMMAND, *ONLY_EMBEDDINGS)
    assert outcome.exit_code == 2
    assert "data.identity" in outcome.text


def test_what_a_checkpoint_states_is_taken_unless_asked_otherwise(folder):
    path = folder.root / "model.ckpt"
    content = torch.load(path, weights_only=True)
    torch.save({**content, "args": {"crop_pct": 0.8, "interpolation": "lanczos"}}, path)
    outcome = folder.run(*COMMAND, "dry_run=true")
    assert "Pictures: lanczos, shorter side to 80 pixels" in outcome.text
    outcome = folder.run(*COMMAND, "dry_run=true", "data.interpolation=bilinear")
    assert "Pictures: bilinear, shorter side to 80 pixels" in outcome.text


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("data.crop_pct=0", "data.crop_pct=0: input should be greater than 0"),
        ("data.crop_pct=80", "data.crop_pct=80: input should be less than or equal to 1"),
        ("data.path=pictures", "data.path: this data= has no such option. Did you mean data.root?"),
        ("data.crop_mode=centre", "data.crop_mode=centre: input should be 'center', 'squash'"),
        ("data.interpolation=cubic", "data.interpolation=cubic: input should be 'nearest'"),
        ("data.root=nowhere", "data.root=nowhere: no such folder."),
        ("data.mode=CMYK", "data.mode=CMYK: input should be 'RGB' or 'L'"),
        ("data.classes=[cat]", "dog: a folder of a class that data.classes does not name."),
    ],
)
def test_what_is_wrong_is_said_before_any_work(folder, argument, message):
    outcome = folder.run(*COMMAND, argument)
    assert (outcome.exit_code, message in outcome.text) == (2, True), outcome.text
    assert not folder.output.exists()


def test_what_cannot_be_read_is_said_before_a_run(folder):
    broken = folder.root / "pictures" / "val" / "dog" / "val1.png"
    broken.write_bytes(broken.read_bytes()[:200])
    outcome = folder.run(*COMMAND, "dry_run=true")
    assert outcome.exit_code == 0
    assert (
        "WARNING: 1 of 12 records looked at cannot be read. The first, dog/val1: " in outcome.text
    )
    assert folder.run(*COMMAND, "dry_run=true", "strict=true").exit_code == 2


def test_some_of_the_classes_that_the_checkpoint_names_are_enough(folder):
    path = folder.root / "model.ckpt"
    write_checkpoint(path, classes=3)
    names = {"classes": ["eel", "dog", "cat"]}
    torch.save({**torch.load(path, weights_only=True), **names}, path)
    outcome = folder.run(*COMMAND, *ONLY_EMBEDDINGS)
    assert outcome.exit_code == 0, outcome.text
    found = load_embeddings(folder.output / "embeddings" / "test_embeddings.pt")
    assert found.classes == names["classes"]
    assert found.labels.tolist() == [2, 2, 1, 1]  # cat, cat, dog, dog
    torch.save({**torch.load(path, weights_only=True), "classes": ["eel", "dog", "ant"]}, path)
    refused = folder.run(*COMMAND, *ONLY_EMBEDDINGS, "output_dir=other")
    assert "its classifier has 3 classes, not 2" in refused.text


def test_a_source_that_does_not_crop_says_so(folder):
    options = (config_dir() / "data" / "hdf5.yaml").read_text()
    assert "crop_pct" not in options
    outcome = folder.run(*COMMAND, "data=phantom", "data.root=phantoms", "+data.crop_pct=0.9")
    assert outcome.exit_code == 2
    assert "Phantom resizes whole images to data.image_size, and does not crop" in outcome.text


@pytest.mark.ray
def test_workers_read_what_was_listed_once(folder):
    """Equal to a run in one process; the listing lies with the run."""
    assert folder.run(*COMMAND).exit_code == 0
    ray = folder.run(*COMMAND, "cluster=ray", "cluster.workers=2", "output_dir=by_ray")
    assert ray.exit_code == 0, ray.text
    assert artifacts(folder.root / "by_ray") == artifacts(folder.output)
    listings = sorted((folder.root / "by_ray" / ".artifactgen" / "listings").iterdir())
    assert [path.name for path in listings] == ["test.arrow", "train.arrow", "val.arrow"]
