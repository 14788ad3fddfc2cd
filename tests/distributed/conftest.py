from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.workspace import (
    CKPT,
    EXPERIMENT,
    IMAGE_SIZE,
    Workspace,
    write_checkpoint,
    write_images,
)

from artifactgen.demo.phantom import write_phantoms

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
def interruptible() -> Iterator[None]:
    """Let the programs that tests start hear SIGINT, also where a script has started the tests in
    the background: such a process ignores it, and so does whatever it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


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
