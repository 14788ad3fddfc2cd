"""A user's folder: a checkpoint of two classes, and an experiment for pictures of any source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from helpers.workspace import Workspace, write_checkpoint
from PIL import Image

CONF = """\
# @package _global_
defaults:
  - embeddings/default
  - override /model: timm
  - override /data: {source}
  - _self_
model: {{backbone: test_vit}}
data: {{image_size: 64, batch_size: {batch_size}{options}}}
cluster: {{threads_per_worker: 1}}
"""


def user_folder(root: Path, *, source: str, batch_size: int = 2, options: str = "") -> Workspace:
    """`model.ckpt`, a small ViT of 64 pixels, and `experiment=embeddings/my_experiment`.

    Args:
        root: the folder.
        source: choice of `data`.
        batch_size: records in one forward pass.
        options: more of the section `data`, as in `root: pictures`.
    """
    write_checkpoint(root / "model.ckpt", classes=2)
    conf = root / "conf" / "experiment" / "embeddings"
    conf.mkdir(parents=True)
    more = f", {options}" if options else ""
    text = CONF.format(source=source, batch_size=batch_size, options=more)
    (conf / "my_experiment.yaml").write_text(text)
    return Workspace(root, root / "conf")


def write_pictures(root: Path, counts: Mapping[str, int]) -> None:
    """Pictures of many sizes in two classes: `pictures/<split>/cat/<split>0.png`, dog/…1.png, …"""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for row in range(count):
            place = root / "pictures" / split / ("cat", "dog")[row % 2] / f"{split}{row}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            pixels = rng.integers(0, 256, (60 + 9 * row, 90 - 7 * row, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place)


def plain_model(folder: Workspace) -> Any:
    """The model of the checkpoint by timm alone."""
    model = timm.create_model("test_vit", num_classes=2, img_size=64).eval()
    weights = torch.load(folder.root / "model.ckpt", weights_only=True)["state_dict"]
    model.load_state_dict({k.removeprefix("model."): v for k, v in weights.items()})
    return model
