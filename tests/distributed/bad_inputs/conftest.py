"""A user's folder for data sets of every kind, and a tiny ViT."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.workspace import IMAGE_SIZE, Workspace, write_checkpoint

from artifactgen.types import Precision

EXPERIMENT = """\
# @package _global_
defaults:
  - embeddings/default
  - override /model: timm
  - override /data: {data}
  - _self_

model:
  backbone: test_vit

data:
  image_size: {size}
  batch_size: 3

cluster:
  threads_per_worker: 1

max_failures: 0.9
precision: {precision}
"""
RUN = ("experiment=embeddings/tiny", "ckpt_path=model.ckpt")
Tiny = Callable[..., Workspace]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "model.ckpt"
    write_checkpoint(path)
    return path


@pytest.fixture(scope="session")
def tiny(tiny_checkpoint: Path) -> Tiny:
    """Make a folder to run in, for a choice of `data`."""

    def make(root: Path, data: str, precision: Precision = "auto") -> Workspace:
        conf = root / "conf" / "experiment" / "embeddings"
        conf.mkdir(parents=True)
        text = EXPERIMENT.format(data=data, size=IMAGE_SIZE, precision=precision)
        (conf / "tiny.yaml").write_text(text)
        (root / "model.ckpt").symlink_to(tiny_checkpoint)
        return Workspace(root, root / "conf")

    return make
