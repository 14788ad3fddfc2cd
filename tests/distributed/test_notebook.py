"""In a notebook: what a run writes, and the page of the manual, run as it stands."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import timm
import torch
from helpers.workspace import CKPT, CLASSES, EXPERIMENT, IMAGE_SIZE, RECORDS, Workspace
from numpy.typing import NDArray

from artifactgen import Explainer, load_embeddings

BATCH = 2


def same_model(path: Path) -> Any:
    """The model of a checkpoint, as a user has it in memory."""
    weights = torch.load(path, weights_only=True)["state_dict"]
    model = timm.create_model("test_vit", num_classes=len(CLASSES), img_size=IMAGE_SIZE)
    model.load_state_dict({name.removeprefix("model."): value for name, value in weights.items()})
    return model


def normalised(images_BHWC: NDArray[np.uint8], model: Any) -> torch.Tensor:
    x_BCHW = torch.from_numpy(images_BHWC).permute(0, 3, 1, 2) / 255
    cfg = model.pretrained_cfg
    mean, std = (torch.tensor(cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    return (x_BCHW - mean) / std


def read(path: Path) -> NDArray[np.uint8]:
    return np.asarray(cv2.imread(str(path))[..., ::-1])


def test_it_gives_what_a_run_writes(workspace: Workspace, shared: Path) -> None:
    kept = "precision=32-true", "save_maps=true", "splits=[test]"
    outcome = workspace.run(EXPERIMENT, CKPT, *kept)
    assert outcome.exit_code == 0, outcome.text
    written = load_embeddings(workspace.output / "embeddings/test_embeddings.pt")
    model = same_model(shared / "a.ckpt")
    with h5py.File(shared / "images.h5", locking=False) as file:
        images, labels = file["test/images"][:], file["test/labels"][:]
    x = Explainer(model, classes=CLASSES, batch_size=BATCH)(normalised(images, model))
    assert len(x) == RECORDS["test"]
    torch.testing.assert_close(x.embeddings, written.embeddings, rtol=0, atol=1e-6)
    with h5py.File(workspace.output / "maps/test/test-000000.h5") as file:
        np.testing.assert_allclose(x.gradcam[:BATCH], file["gradcam"][:BATCH], rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(
            x.attention[:BATCH], file["attention"][:BATCH], rtol=0, atol=1e-6
        )
    assert np.array_equal(x.images, images)
    for row, record_id in enumerate(written.record_ids):
        for k in range(len(CLASSES)):
            png = read(workspace.output / f"gradcam/{record_id}/class_{k}.png")
            assert np.array_equal(x.overlay(row, k), png)
        figure = x.figure(row, title=record_id, label=CLASSES[labels[row]])
        png = read(workspace.output / f"attention_maps/{record_id}_attention.png")
        assert np.array_equal(figure, png)
