"""The installed program works from any folder, with the user's own configuration."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import timm
import torch

ROOT = Path(__file__).parents[1]

EXPERIMENT = """\
# @package _global_
defaults:
  - embeddings/default
  - override /model: timm
  - override /data: hdf5
  - _self_
model:
  backbone: test_vit
data:
  path: images.h5
  batch_size: 4
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the wheel's content; the dependencies are this environment's."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target]
    subprocess.run([*pip, wheel], check=True, capture_output=True)
    return target


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A user's folder: data, checkpoint, configuration."""
    with h5py.File(tmp_path / "images.h5", "w") as file:
        rng = np.random.default_rng(0)
        file["test/images"] = rng.integers(0, 256, (6, 160, 160, 3), dtype=np.uint8)
        file["test/labels"] = np.arange(6) % 3
    torch.manual_seed(0)
    torch.save(timm.create_model("test_vit", num_classes=3).state_dict(), tmp_path / "model.pth")
    experiment = tmp_path / "conf/experiment/embeddings/mine.yaml"
    experiment.parent.mkdir(parents=True)
    experiment.write_text(EXPERIMENT)
    return tmp_path


def test_the_wheel_runs_from_another_folder(site: Path, elsewhere: Path):
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    where = [sys.executable, "-c", "import distributed, artifactgen; print(distributed.__file__)"]
    found = subprocess.run(where, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert found.stdout.startswith(str(site))
    command = [site / "bin/generate_artifacts", "--config-dir", "conf"]
    options = ["experiment=embeddings/mine", "ckpt_path=model.pth"]
    done = subprocess.run(
        [sys.executable, *command, *options],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert (elsewhere / "artifacts/mine/_SUCCESS.json").exists()
    assert len(list((elsewhere / "artifacts/mine/gradcam").glob("images_*/class_*.png"))) == 18
