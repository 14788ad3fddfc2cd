"""A classifier that knows what it sees: a small ViT, trained for a moment on brightness."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import timm
import torch
from numpy.typing import NDArray

LEVELS = ("dark", "grey", "bright")
SIZE = 64
RECORDS = 48
BACKBONE = "test_vit"


def level_images(records: int = RECORDS, *, seed: int = 0) -> NDArray[np.uint8]:
    """uint8 (N, H, W, 3): noise, and in turn little, some or much light."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 50, (records, SIZE, SIZE, 3))
    images += (100 * (np.arange(records) % 3))[:, None, None, None]
    return images.astype(np.uint8)


def level_labels(records: int = RECORDS) -> NDArray[np.int64]:
    return np.arange(records) % 3


def write_levels(
    path: Path,
    *,
    images: NDArray[Any] | None = None,
    labels: NDArray[np.int64] | None = None,
    classes: tuple[str, ...] | None = LEVELS,
) -> None:
    """Two splits, the second of a quarter of the images."""
    images = level_images() if images is None else images
    labels = level_labels(len(images)) if labels is None else labels
    with h5py.File(path, "w") as file:
        if classes is not None:
            file.attrs["classes"] = classes
        for split, rows in (("train", slice(12, None)), ("test", slice(0, 12))):
            file[f"{split}/images"], file[f"{split}/labels"] = images[rows], labels[rows]


def train(path: Path) -> None:
    """A checkpoint of Lightning's form, after some seconds of training; right on all images."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model(BACKBONE, num_classes=len(LEVELS), img_size=SIZE)
        cfg: Any = model.pretrained_cfg
        mean, std = (torch.tensor(cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
        images = torch.from_numpy(level_images(96, seed=1)).permute(0, 3, 1, 2).float() / 255
        x_BCHW, labels_B = (images - mean) / std, torch.from_numpy(level_labels(96))
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        for step in range(30):
            rows = slice(step % 3 * 32, step % 3 * 32 + 32)
            loss = torch.nn.functional.cross_entropy(model(x_BCHW[rows]), labels_B[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert (model.eval()(x_BCHW).argmax(1) == labels_B).all()
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": weights}, path)
