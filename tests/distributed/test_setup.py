"""A set-up that is wrong without failing is noticed: before the run, and in its reports."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.trained import (
    BACKBONE,
    LEVELS,
    RECORDS,
    SIZE,
    level_images,
    level_labels,
    train,
    write_levels,
)
from helpers.workspace import Outcome, Workspace, working_in, write_checkpoint

EXPERIMENT = f"""\
# @package _global_
defaults:
  - embeddings/default
  - override /model: timm
  - override /data: hdf5
  - _self_

model:
  backbone: {BACKBONE}

data:
  path: levels.h5
  image_size: {SIZE}
  batch_size: 8

cluster:
  threads_per_worker: 1
"""


@pytest.fixture(scope="module")
def levels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that knows colours, and an experiment."""
    root = tmp_path_factory.mktemp("levels")
    train(root / "levels.ckpt")
    experiments = root / "conf" / "experiment"
    experiments.mkdir(parents=True)
    (experiments / "levels.yaml").write_text(EXPERIMENT)
    return root


@pytest.fixture
def workspace(levels: Path, tmp_path: Path) -> Workspace:
    (tmp_path / "levels.ckpt").symlink_to(levels / "levels.ckpt")
    write_levels(tmp_path / "levels.h5")
    return Workspace(tmp_path, levels / "conf")


def run(workspace: Workspace, *options: str) -> Outcome:
    return workspace.run(
        "experiment=levels",
        "ckpt_path=levels.ckpt",
        "output_dir=out",
        "generate_attention=false",
        "page=[]",
        *options,
    )


def warnings(outcome: Outcome) -> list[str]:
    """Those of pixels, labels and accuracy: nothing in a picture speaks for its being dark."""
    return [line for line in outcome.lines if "WARNING" in line and "gradcam: the maps" not in line]


def report(workspace: Workspace) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((workspace.root / "out" / "run.json").read_text())
    return found


def test_accuracy_is_said_everywhere(workspace: Workspace) -> None:
    outcome = run(workspace, "page=[overview]")
    assert outcome.exit_code == 0, outcome.text
    assert "Accuracy on some records: 30 of 30 right (100.0 %)" in outcome.text
    assert "Accuracy: test: 12 of 12 right (100.0 %)" in outcome.text
    assert warnings(outcome) == []
    summary = (workspace.root / "out" / "summary.md").read_text()
    assert "- train: 36 of 36 right (100.0 %)" in summary
    found = report(workspace)["accuracy"]["test"]
    assert (found["right"], found["records"], found["accuracy"]) == (12, 12, 1.0)
    assert found["by_class"]["grey"] == {"right": 4, "records": 4}


def test_the_worst_class_is_named(workspace: Workspace) -> None:
    labels = level_labels()
    labels[[13, 16]] = 2  # two of the grey ones
    write_levels(workspace.root / "levels.h5", labels=labels)
    outcome = run(workspace)
    assert outcome.exit_code == 0, outcome.text
    assert "Accuracy: train: 34 of 36 right (94.4 %); worst: bright 86 %" in outcome.text


def test_dark_pixels_are_said_with_the_option_that_mends_them(workspace: Workspace) -> None:
    write_levels(workspace.root / "levels.h5", images=level_images().astype(np.uint16) * 16)
    told = run(workspace, "dry_run=true")
    assert told.exit_code == 0, told.text
    assert "Pixels reach 3,984 of uint16, where white is 65,535" in told.text
    assert "data.max_value=4095?" in told.text
    assert "% of guessing" in told.text
    mended = run(workspace, "data.max_value=4095")
    assert mended.exit_code == 0, mended.text
    assert warnings(mended) == []
    assert "36 of 36 right" in mended.text


def test_strict_ends_with_2_before_any_work(workspace: Workspace) -> None:
    write_levels(workspace.root / "levels.h5", images=level_images().astype(np.uint16) * 16)
    outcome = run(workspace, "strict=true")
    assert outcome.exit_code == 2
    assert "strict=true: 2 warnings, see above." in outcome.text
    assert not (workspace.root / "out").exists()


def test_strict_refuses_what_was_finished_with_warnings(workspace: Workspace) -> None:
    write_levels(workspace.root / "levels.h5", images=level_images().astype(np.uint16) * 16)
    assert run(workspace).exit_code == 0
    outcome = run(workspace, "strict=true")
    assert outcome.exit_code == 2
    assert "strict=true: 2 warnings, see above." in outcome.text
    assert "Complete: nothing to do." in run(workspace).text


def test_strict_refuses_what_only_the_whole_run_shows(workspace: Workspace) -> None:
    """One split among others: few of the first look's records are of it."""
    labels = level_labels()
    labels[:12] = (labels[:12] + 1) % 3
    write_levels(workspace.root / "levels.h5", labels=labels)
    outcome = run(workspace, "strict=true")
    assert outcome.exit_code == 2, outcome.text
    assert "test: 0.0 % of 12 records are right" in outcome.text
    assert "strict=true: everything is done, and the accuracy says" in outcome.text
    assert not (workspace.root / "out" / "_SUCCESS.json").exists()
    assert (workspace.root / "out" / "summary.md").exists()
    again = run(workspace, "strict=true")
    assert again.exit_code == 2
    assert run(workspace).exit_code == 0


@pytest.mark.parametrize(
    ("scale", "said"),
    [
        (1.0, "Floats from 0 to 249 are not normalised, and are taken as they are"),
        (1 / 255, "are taken as they are. If the model was trained on normalised ones"),
    ],
)
def test_floats_are_mended_by_what_the_warning_says(
    workspace: Workspace, scale: float, said: str
) -> None:
    images = level_images().astype(np.float32) * np.float32(scale)
    write_levels(workspace.root / "levels.h5", images=images)
    outcome = run(workspace)
    assert said in outcome.text
    told = next(line for line in outcome.lines if said in line)
    options = [word.strip("?;.,") for word in told.split() if word.startswith("data.")]
    mended = run(workspace, "overwrite=true", *options[:2])
    assert mended.exit_code == 0, mended.text
    assert "36 of 36 right" in mended.text
    assert warnings(mended) == []


def test_classes_in_another_order_are_told_and_mended(workspace: Workspace) -> None:
    names = ("bright", "dark", "grey")  # of the labels; the model has dark, grey, bright
    labels = (level_labels() + 1) % 3
    write_levels(workspace.root / "levels.h5", labels=labels, classes=names)
    outcome = run(workspace)
    assert "another order of the classes would explain it" in outcome.text
    assert "'model.classes=[dark,grey,bright]'" in outcome.text
    mended = run(workspace, "model.classes=[dark,grey,bright]", "output_dir=mended")
    assert mended.exit_code == 0, mended.text
    assert warnings(mended) == []
    assert "36 of 36 right" in mended.text
    classes = json.loads((workspace.root / "mended" / "classes.json").read_text())
    assert list(classes.values()) == list(LEVELS)


def test_labels_without_names_in_another_order_are_told_and_mended(workspace: Workspace) -> None:
    write_levels(workspace.root / "levels.h5", labels=(level_labels() + 1) % 3, classes=None)
    outcome = run(workspace)
    advice = re.search(r"'(data\.classes=\[[\d,]+\])'", outcome.text)
    assert advice, outcome.text
    mended = run(workspace, advice[1], "output_dir=mended")
    assert mended.exit_code == 0, mended.text
    assert warnings(mended) == []
    assert "36 of 36 right" in mended.text


def test_labels_of_more_classes_than_the_model_has(workspace: Workspace) -> None:
    labels = np.arange(RECORDS) % 7
    write_levels(workspace.root / "levels.h5", labels=labels, classes=None)
    outcome = run(workspace)
    assert outcome.exit_code == 2
    assert "the label 6, and the model has 3 classes (0 to 2). If the labels are" in outcome.text
    options = ["data.classes=[0,1,2,3,4,5,6]", "model.num_classes=3"]
    assert run(workspace, *options).exit_code == 0


def test_labels_of_other_classes_are_said(workspace: Workspace) -> None:
    write_levels(workspace.root / "levels.h5", classes=(*LEVELS, "red", "green"))
    outcome = run(workspace, "model.num_classes=3")
    assert outcome.exit_code == 0, outcome.text
    assert "The labels are of 5 classes and the model has 3" in outcome.text
    assert report(workspace)["accuracy"] == {}
    assert run(workspace, "model.num_classes=3", "strict=true", "output_dir=b").exit_code == 2


def test_labels_that_count_from_1_are_refused(workspace: Workspace) -> None:
    write_levels(workspace.root / "levels.h5", labels=level_labels() + 1, classes=None)
    outcome = run(workspace)
    assert outcome.exit_code == 2
    assert "has the label 3, and the model has 3 classes (0 to 2)" in outcome.text
    assert "If they count from 1, subtract 1 in the data set." in outcome.text


def test_labels_without_names_need_not_reach_the_last_class(workspace: Workspace) -> None:
    labels = np.minimum(level_labels(), 1)
    write_levels(workspace.root / "levels.h5", labels=labels, classes=None)
    outcome = run(workspace)
    assert outcome.exit_code == 0, outcome.text
    assert "Accuracy: train: 24 of 36 right" in outcome.text


def test_a_grid_that_is_too_coarse_is_said(workspace: Workspace) -> None:
    write_checkpoint(workspace.root / "resnet.ckpt", backbone="resnet18")
    resnet = ("model.backbone=resnet18", "ckpt_path=resnet.ckpt")
    outcome = run(workspace, *resnet, "dry_run=true")
    assert "GradCAM: layer4 has a grid of 2 × 2 for images of 64 × 64 pixels" in outcome.text
    assert "gradcam.layer=layer3 has 4 × 4." in outcome.text
    finer = run(workspace, *resnet, "gradcam.layer=layer3", "dry_run=true")
    assert "has a grid of" not in finer.text


def test_a_class_whose_maps_are_all_empty_is_said(workspace: Workspace) -> None:
    outcome = run(workspace, "save_maps=true")
    assert outcome.exit_code == 0, outcome.text
    said = "gradcam: the maps of class dark are empty for all 48 records"
    assert said in outcome.text
    assert said in (workspace.root / "out" / "summary.md").read_text()
    maps = [h5py.File(path)["gradcam"][:, 0] for path in (workspace.root / "out").glob("maps/*/*")]
    assert len(maps) > 1
    assert not any(array.any() for array in maps)


@pytest.mark.parametrize("option", ["data.mean=0", "data.mean=[0,0,0]", "data.mean=0.0"])
def test_one_number_is_the_mean_of_all_channels(workspace: Workspace, option: str) -> None:
    outcome = run(workspace, option, "data.std=1", "dry_run=true")
    assert outcome.exit_code == 0, outcome.text


def test_the_predicted_class_may_be_given_as_a_list(workspace: Workspace) -> None:
    outcome = run(workspace, "target_classes=[predicted]")
    assert outcome.exit_code == 0, outcome.text
    pictures = list((workspace.root / "out" / "gradcam").glob("*/*.png"))
    assert len(pictures) == RECORDS


def test_resizing_is_said(workspace: Workspace) -> None:
    write_levels(workspace.root / "levels.h5", images=level_images()[:, ::2, ::2])
    outcome = run(workspace, "dry_run=true")
    assert "stored with 32 × 32, brought to 64 × 64" in outcome.text


def test_the_files_say_what_the_pooling_came_to(workspace: Workspace) -> None:
    from artifactgen import load_embeddings

    assert run(workspace).exit_code == 0
    with working_in(workspace.root):
        meta = load_embeddings("out/embeddings/test_embeddings.pt").meta
    assert meta["pooling"] == "cls"


def test_too_little_space_is_refused_with_a_way_round(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    usage = shutil.disk_usage(workspace.root)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    outcome = run(workspace)
    assert outcome.exit_code == 2
    assert f"{workspace.root / 'out'}: about" in outcome.text
    assert "1.0 kB are free" in outcome.text
    assert run(workspace, "check_space=false").exit_code == 0


def test_no_record_is_counted_twice_before_the_run(workspace: Workspace) -> None:
    write_levels(workspace.root / "levels.h5", images=level_images(15), labels=level_labels(15))
    outcome = run(workspace, "dry_run=true")
    assert "Accuracy on some records: 15 of 15 right" in outcome.text
