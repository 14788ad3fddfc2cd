from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from workspace import CKPT, CLASSES, EXPERIMENT, IMAGE_SIZE, RECORDS, Workspace

from artifactgen.data.phantom import write_phantoms

MY_EXPERIMENT = """\
# @package _global_
# Random images and a small ViT.

defaults:
  - embeddings/default
  - override /model: timm
  - override /data: hdf5
  - _self_

model:
  backbone: test_vit

data:
  path: {data}/images.h5
  image_size: {size}
  batch_size: 2

cluster:
  threads_per_worker: 1
"""


@pytest.fixture(scope="session", autouse=True)
def few_threads() -> Iterator[None]:
    """Equal bytes are promised for equal threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, checkpoints and configuration that no test changes."""
    root = tmp_path_factory.mktemp("shared")
    write_images(root / "images.h5")
    for seed, name in enumerate("ab"):
        write_checkpoint(root / f"{name}.ckpt", seed=seed)
    write_phantoms(root / "acdc", training=10, testing=5)
    conf = root / "conf" / "experiment" / "embeddings"
    conf.mkdir(parents=True)
    text = MY_EXPERIMENT.format(data=root, size=IMAGE_SIZE)
    (conf / "my_experiment.yaml").write_text(text)
    return root


def write_images(path: Path, broken: tuple[str, ...] = ()) -> None:
    """uint8 images with labels and ids; float ones with NaN in the records that are broken."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file.attrs["classes"] = CLASSES
        for split, records in RECORDS.items():
            ids = [f"{split}_{row:03d}" for row in range(records)]
            images: NDArray[np.generic] = rng.integers(
                0, 256, (records, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8
            )
            if broken:
                images = images.astype(np.float32) / 255
                images[[record_id in broken for record_id in ids], 0, 0, 0] = np.nan
            file[f"{split}/images"] = images
            file[f"{split}/labels"] = np.arange(records) % len(CLASSES)
            file[f"{split}/record_ids"] = ids


def write_checkpoint(path: Path, *, seed: int = 0, backbone: str = "test_vit") -> None:
    """Random weights as Lightning stores a module that keeps its network in `model`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        size = {"img_size": IMAGE_SIZE} if "vit" in backbone else {}
        model = timm.create_model(backbone, num_classes=len(CLASSES), **size)
    weights = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": weights, "epoch": 9}, path)


MakeWorkspace = Callable[[Path], Workspace]


@pytest.fixture(scope="session")
def make_workspace(shared: Path) -> MakeWorkspace:
    def make(root: Path) -> Workspace:
        (root / "path" / "to").mkdir(parents=True)
        (root / "path" / "to" / "model.ckpt").symlink_to(shared / "a.ckpt")
        for name in ("a.ckpt", "b.ckpt"):
            (root / name).symlink_to(shared / name)
        return Workspace(root, shared / "conf")

    return make


@pytest.fixture
def workspace(tmp_path: Path, make_workspace: MakeWorkspace) -> Workspace:
    """A fresh folder to run in."""
    return make_workspace(tmp_path)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, make_workspace: MakeWorkspace) -> Workspace:
    """A run from beginning to end, not to be changed: the oracle of the others."""
    workspace = make_workspace(tmp_path_factory.mktemp("finished"))
    outcome = workspace.run(EXPERIMENT, CKPT)
    assert outcome.exit_code == 0, outcome.text
    (workspace.root / "told.txt").write_text(outcome.text)
    return workspace
