"""Rows 13, 14 and 16: checkpoints that run code, are broken, lie, or belong to another model."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import timm
import torch
from helpers.broken import assert_refused, peak_growth, picture
from helpers.workspace import CLASSES, Outcome, Workspace, write_checkpoint

RUN = ("experiment=embeddings/tiny", "data.path=data.h5", "ckpt_path=bad.ckpt")
Weights = dict[str, torch.Tensor]


class Payload:
    """Makes a folder when it is unpickled: the proof that code ran."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


@pytest.fixture
def workspace(tmp_path: Path, tiny) -> Workspace:
    made: Workspace = tiny(tmp_path, "hdf5")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.attrs["classes"] = CLASSES
        file["images"] = np.stack([picture(n, (64, 64)) for n in range(6)])
        file["labels"] = np.arange(6) % 3
    return made


@pytest.fixture
def weights(workspace: Workspace) -> Weights:
    content: dict[str, Weights] = torch.load(workspace.root / "model.ckpt", weights_only=True)
    return content["state_dict"]


def test_a_checkpoint_that_runs_code(workspace: Workspace, weights: Weights) -> None:
    marker = workspace.root / "it_ran"
    torch.save({"state_dict": weights, "callbacks": Payload(marker)}, workspace.root / "bad.ckpt")
    outcome = workspace.run(*RUN, "output_dir=out")
    told = r"bad\.ckpt: .*refused, and nothing of it was run.*mkdir"
    assert_refused(outcome, told, workspace.root / "out")
    assert not marker.exists()


def cut(path: Path, weights: Weights) -> None:
    torch.save({"state_dict": weights}, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def page(path: Path, weights: Weights) -> None:
    path.write_text("<!DOCTYPE html><html><body>Sign in</body></html>\n" * 50)


def pointer(path: Path, weights: Weights) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")


def not_a_number(path: Path, weights: Weights) -> None:
    name = next(name for name in weights if name.endswith("qkv.weight"))
    broken = weights[name].clone()
    broken[0, 0] = torch.nan
    torch.save({"state_dict": {**weights, name: broken}}, path)


def bomb(path: Path, weights: Weights) -> None:
    name = next(iter(weights))
    torch.save({"state_dict": {**weights, name: torch.ones(1).expand(10**6, 10**6)}}, path)
    assert path.stat().st_size < 5e6


def other_classes(path: Path, weights: Weights) -> None:
    write_checkpoint(path, classes=7)


def lacks_a_block(path: Path, weights: Weights) -> None:
    kept = {name: tensor for name, tensor in weights.items() if ".blocks.3." not in name}
    torch.save({"state_dict": kept}, path)


def other_architecture(path: Path, weights: Weights) -> None:
    torch.save(timm.create_model("resnet10t", num_classes=3).state_dict(), path)


def nothing(path: Path, weights: Weights) -> None:
    path.write_bytes(b"")


BROKEN: dict[str, tuple[Callable[[Path, Weights], None], str]] = {
    "cut": (cut, r"bad\.ckpt.*cut short|bad\.ckpt.*damaged|bad\.ckpt.*ends"),
    "empty": (nothing, r"bad\.ckpt.*empty"),
    "a page": (
        page,
        r"bad\.ckpt: a web page, such as a server sends .*, no checkpoint\.",
    ),
    "a pointer": (
        pointer,
        r"bad\.ckpt: a Git LFS pointer \(fetch the file: git lfs pull\)",
    ),
    "NaN": (not_a_number, r"NaN"),
    "stride 0": (bomb, r"claims the shape \(1000000, 1000000\)"),
    "other classes": (other_classes, r"its classifier has 7 classes.*Set model\.num_classes=7"),
    "keys missing": (lacks_a_block, r"does not fit test_vit[\s\S]*blocks\.3\."),
    "other architecture": (other_architecture, r"does not fit test_vit[\s\S]*resnet10t|resnet"),
}
"""What is wrong with a checkpoint, and what is said."""


@pytest.mark.parametrize("what", BROKEN)
def test_a_checkpoint_that_cannot_be_used_is_refused(
    workspace: Workspace, weights: Weights, what: str
) -> None:
    make, told = BROKEN[what]
    make(workspace.root / "bad.ckpt", weights)
    outcomes: list[Outcome] = []
    growth = peak_growth(lambda: outcomes.append(workspace.run(*RUN, "output_dir=out")))
    assert_refused(outcomes[0], told, workspace.root / "out", lines=14)
    assert growth < 250e6


def test_attention_of_a_network_without_it_has_a_status(workspace: Workspace) -> None:
    """Row 16, in the manifest; the rest is in test_wrong_use.py."""
    write_checkpoint(workspace.root / "bad.ckpt", backbone="resnet10t")
    outcome = workspace.run(*RUN, "model.backbone=resnet10t", "output_dir=out", "limit=2")
    assert outcome.exit_code == 0, outcome.text
    assert "Artifact: attention SKIPPED: ResNet computes no attention" in outcome.text
    rows = pq.read_table(workspace.root / "out" / "manifest.parquet").to_pylist()
    assert {row["gradcam"] for row in rows} == {"ok"}
    assert all("computes no attention" in row["attention"] for row in rows)
    assert "computes no attention" in (workspace.root / "out" / "summary.md").read_text()
