"""The examples of docs/extending.md, as they stand there, beside a user's own configuration."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
from helpers.workspace import (
    CKPT,
    CLASSES,
    EXPERIMENT,
    Workspace,
    artifacts,
    assert_exact,
)

from artifactgen import load_embeddings
from artifactgen.device import find_devices
from artifactgen.rendering.overlay import scale_cam
from benchmarks.exactness.reference import pytorch_grad_cam

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
EXAMPLES = re.findall(r"^`(\S+)`\n```\w+\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)

FOLDER = """\
# @package _global_
defaults:
  - override /model: small
  - override /data: my_folder
  - _self_
data:
  root: pictures
"""


@pytest.fixture
def project(workspace: Workspace) -> Workspace:
    """A user's folder: their configuration, and their modules beside it."""
    theirs = Workspace(workspace.root, workspace.root / "conf")
    for name, content in EXAMPLES:
        path = theirs.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    experiments = theirs.conf / "experiment" / "embeddings"
    experiments.mkdir(parents=True)
    experiment = (workspace.conf / "experiment/embeddings/my_experiment.yaml").read_text()
    (experiments / "my_experiment.yaml").write_text(experiment)
    (experiments / "folder.yaml").write_text(FOLDER)
    return theirs


def test_there_is_an_example_of_each_seam() -> None:
    groups = {Path(name).parts[1] for name, _ in EXAMPLES if name.startswith("conf/")}
    assert groups == {"data", "model", "artifact", "page", "cluster"}


def test_a_kind_and_a_page_of_ones_own(project: Workspace) -> None:
    options = ["artifact=[embeddings,gradcam,edges]", "edges.layer=patch_embed.proj"]
    mine = [*options, "page=[overview,predictions]", "splits=[test]", "save_maps=true"]
    outcome = project.run(EXPERIMENT, CKPT, *mine)
    assert outcome.exit_code == 0, outcome.text
    assert "not of this program" not in outcome.text
    names = sorted(path.name for path in (project.output / "edges").iterdir())
    assert names == [f"test_{row:03d}.png" for row in range(5)]
    counted = (project.output / "predictions_test.txt").read_text().splitlines()
    assert sum(int(line.rpartition(" ")[2]) for line in counted) == 5
    with h5py.File(project.output / "maps/test/test-000000.h5") as file:
        assert file["edges"].shape[1:] == (4, 4)
    assert "Complete: nothing to do" in project.run(EXPERIMENT, CKPT, *mine).text
    # What they made is theirs: other settings replace it, and no list says so.
    (project.output / "edges" / "notes.txt").write_text("mine")
    outcome = project.run(EXPERIMENT, CKPT, "splits=[test]", "seed=1", "limit=2", "overwrite=true")
    assert outcome.exit_code == 0, outcome.text
    assert [path.name for path in (project.output / "edges").iterdir()] == ["notes.txt"]
    assert not (project.output / "predictions_test.txt").exists()


def test_a_source_and_a_model_family_of_ones_own(
    project: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(project.root)
    from my_model import NAMES_OF_2023, SmallNet  # type: ignore[import-not-found]

    torch.manual_seed(0)
    network = SmallNet(3, 16, len(CLASSES)).eval()
    own = network.state_dict()
    weights = {old: own[new] for old, new in NAMES_OF_2023.items()}
    torch.save({"state_dict": weights}, project.root / "small.ckpt")
    images = np.random.default_rng(0).integers(0, 256, (6, 64, 64), dtype=np.uint8)
    (project.root / "pictures").mkdir()
    for index, image in enumerate(images):
        cv2.imwrite(str(project.root / "pictures" / f"p{index}.png"), image)
    (project.root / "pictures" / "p3.png").write_bytes(b"no picture")
    outcome = project.run(
        "experiment=embeddings/folder",
        "ckpt_path=small.ckpt",
        *("save_maps=true", "max_failures=0.5", "precision=32-true"),
    )
    assert outcome.exit_code == 0, outcome.text
    assert "Checkpoint: small.ckpt, 100 % of the encoder (4 of 4 tensors)" in outcome.text
    assert "Pictures: bilinear, 64 × 64 pixels (crop_mode squash, crop_pct 1)" in outcome.text
    assert "attention SKIPPED: SmallNet computes no attention" in outcome.text
    output = project.root / "artifacts" / "folder"
    assert '"naming": "names of 2023"' in (output / "run.json").read_text("utf-8")
    found = load_embeddings(output / "embeddings/test_embeddings.pt")
    good = [0, 1, 2, 4, 5]
    assert found.record_ids == [f"p{index}" for index in good]
    x_BCHW = (torch.from_numpy(images[good])[:, None].expand(-1, 3, -1, -1) / 255 - 0.5) / 0.25
    with torch.no_grad():
        expected = network.body(network.stem(x_BCHW)).mean((2, 3))
    torch.testing.assert_close(found.embeddings, expected, rtol=0, atol=1e-5)
    with h5py.File(output / "maps/test/test-000000.h5") as file:
        layer, cams = str(file.attrs["gradcam.layer"]), file["gradcam"][:]
    assert layer.startswith("body")
    theirs = pytorch_grad_cam(
        network, layer, x_BCHW, range(len(CLASSES)), reshape=lambda output: output
    )
    np.testing.assert_allclose(scale_cam(cams, (64, 64)), theirs, rtol=0, atol=1e-4)


def test_a_runner_of_ones_own_gives_the_same_bytes(project: Workspace, finished: Workspace) -> None:
    started = project.start(EXPERIMENT, CKPT, "cluster=processes")
    outcome = started.finish()
    assert outcome.exit_code == 0, outcome.text
    assert f"2 × {find_devices('cpu').name}, 1 thread each, processes" in outcome.text
    assert_exact(project.output, finished.output)


@pytest.mark.ray
def test_classes_beside_the_configuration_are_found_by_rays_workers(project: Workspace) -> None:
    options = ["artifact=[edges]", "splits=[test]", "cluster=ray"]
    started = project.start(EXPERIMENT, CKPT, *options, "edges.layer=patch_embed.proj")
    outcome = started.finish()
    assert outcome.exit_code == 0, outcome.text
    assert len([name for name in artifacts(project.output) if name.startswith("edges/")]) == 5


def test_a_class_that_is_not_there_is_named(project: Workspace) -> None:
    (project.root / "my_edges.py").unlink()
    (project.conf / "artifact" / "other.yaml").write_text(
        "# @package _global_\nother:\n  _target_: nowhere.Other\n"
    )
    outcome = project.run(EXPERIMENT, CKPT, "artifact=[embeddings,other]")
    assert outcome.exit_code == 2
    assert "other._target_=nowhere.Other: cannot be imported" in outcome.text
    assert not project.output.exists()


def test_a_layer_that_the_model_does_not_have_is_wrong_use(project: Workspace) -> None:
    options = ["artifact=[embeddings,edges]", "edges.layer=blocks.9"]
    outcome = project.run(EXPERIMENT, CKPT, *options)
    assert outcome.exit_code == 2, outcome.text
    assert "edges.layer=blocks.9: VisionTransformer has no such module." in outcome.text
    assert not project.output.exists()


@pytest.mark.parametrize("flags", [["--help"], [EXPERIMENT, "-h"]], ids=str)
def test_help_shows_what_is_ones_own(
    project: Workspace, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    assert project.run(*flags).exit_code == 0
    text = capsys.readouterr().out
    assert "model=timm: Any timm architecture." in text
    assert re.search(r"edges\.layer: stem +# module path of the layer", text)
    assert "model.width: 16" in text
