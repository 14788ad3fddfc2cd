"""`canvas=source`: pictures at the source's own size, through the whole program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.pictures import user_folder
from helpers.workspace import (
    CKPT,
    EXPERIMENT,
    Workspace,
    artifacts,
    assert_exact,
    with_source,
)
from PIL import Image

SIZES = {
    "square": (64, 64),
    "tall": (150, 90),
    "wide": (70, 203),
    "line": (64, 3),
    "big": (400, 300),
}
FOLDER = ("data=image_folder", "data.root=pictures", "data.image_size=64", "data.batch_size=2")

PLAIN = """\
from __future__ import annotations
from dataclasses import dataclass
from typing import Any

@dataclass(frozen=True, kw_only=True)
class Plain:
    path: str
    image_size: Any
    images_key: str
    labels_key: str
    record_ids_key: str
    split_key: str
    classes: Any
    layout: str
    max_pixels: int

    def scan(self):
        raise NotImplementedError

    def read(self, catalog, split, start, stop):
        raise NotImplementedError
"""

COMMAND = (EXPERIMENT, "ckpt_path=model.ckpt")


@pytest.fixture
def pictures(tmp_path: Path) -> Workspace:
    """A user's folder with pictures of several sizes."""
    rng = np.random.default_rng(0)
    for name, size in SIZES.items():
        path = tmp_path / "pictures" / "test" / "cat" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    (tmp_path / "pictures" / "test" / "dog").mkdir()
    return user_folder(tmp_path, source="image_folder", options="root: pictures")


def sizes(folder: Path, pattern: str) -> dict[str, tuple[int, int]]:
    found = {}
    for path in folder.glob(pattern):
        with Image.open(path) as picture:
            found[str(path.relative_to(folder))] = picture.size[::-1]
    return found


def test_pictures_that_are_the_models_input_change_by_no_byte(
    workspace: Workspace, finished: Workspace
) -> None:
    outcome = workspace.run(EXPERIMENT, CKPT, "canvas=source")
    assert outcome.exit_code == 0, outcome.text
    assert "Canvas: the source's own pictures, reduced where a side is longer than 4,096" in (
        outcome.text
    )
    assert_exact(workspace.output, finished.output)


@pytest.mark.parametrize("mode", ["squash", "border"])
def test_pictures_come_out_at_the_sources_own_size(pictures: Workspace, mode: str) -> None:
    outcome = pictures.run(*COMMAND, "canvas=source", f"data.crop_mode={mode}", "canvas_px=300")
    assert outcome.exit_code == 0, outcome.text
    own = {**SIZES, "big": (300, 225)}
    assert sizes(pictures.output, "gradcam/*/*.png") == {
        f"gradcam/cat%2F{name}/class_{k}.png": own[name] for name in own for k in range(2)
    }
    figures = sizes(pictures.output, "attention_maps/*.png")
    assert len(figures) == len(SIZES)
    assert min(width for _, width in figures.values()) >= 1800
    assert sizes(pictures.output, "overview_*.png")["overview_test.png"][1] == 1800


def test_the_canvas_decides_bytes_and_no_embedding(pictures: Workspace) -> None:
    arguments = (*COMMAND, "data.crop_mode=squash", "limit=2")
    assert pictures.run(*arguments).exit_code == 0
    before = artifacts(pictures.output)
    refused = pictures.run(*arguments, "canvas=source")
    assert refused.exit_code == 2
    assert 'canvas: "model" → "source"' in refused.text
    assert artifacts(pictures.output) == before
    done = pictures.run(*arguments, "canvas=source", "overwrite=true")
    assert done.exit_code == 0, done.text
    after = artifacts(pictures.output)
    assert after.keys() == before.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert {name.partition("/")[0] for name in changed} >= {"gradcam", "attention_maps"}
    assert not [name for name in changed if name.endswith(".pt")]
    again = pictures.run(*arguments, "canvas=source", "canvas_px=50")
    assert again.exit_code == 2
    assert "canvas_px: 4096 → 50" in again.text


def test_a_canvas_that_there_is_not_is_refused(workspace: Workspace) -> None:
    outcome = workspace.run(EXPERIMENT, CKPT, "canvas=paper")
    assert outcome.exit_code == 2
    assert "canvas=paper" in outcome.text


def test_a_source_that_cannot_tell_what_the_model_saw_is_told(workspace: Workspace) -> None:
    own = with_source(workspace, "plain", PLAIN, "")
    outcome = own.run(EXPERIMENT, CKPT, "canvas=source")
    assert outcome.exit_code == 2
    assert "canvas=source: Plain does not tell what of its pictures the model saw" in outcome.text
