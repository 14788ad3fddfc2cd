"""The contact sheets: what is on them, when they are drawn, and what they must not do."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from helpers.workspace import (
    CKPT,
    EXPERIMENT,
    IMAGE_SIZE,
    RECORDS,
    Workspace,
    artifacts,
    snapshot,
    write_checkpoint,
    write_images,
)
from PIL import Image

from artifactgen.rendering import sheet as sheet_module
from artifactgen.rendering.sheet import Sheet

SPLITS = tuple(RECORDS)
ALL = [f"overview_{split}.png" for split in SPLITS]


def sheets(output: Path) -> list[str]:
    return sorted(path.name for path in output.glob("overview_*"))


def text_of(path: Path) -> dict[str, str]:
    with Image.open(path) as opened:
        opened.load()
        return dict(opened.text)


def test_each_split_has_a_sheet_that_names_its_origin(finished: Workspace) -> None:
    assert sheets(finished.output) == sorted(ALL)
    for split in SPLITS:
        text = text_of(finished.output / f"overview_{split}.png")
        assert text["Split"] == split
        assert text["Software"].startswith("artifactgen ")
        assert "sha256" in text["Checkpoint"]


def test_the_pictures_on_it_are_those_on_disk(finished: Workspace) -> None:
    """The sheet of a split of five shows every record; its GradCAM panels are the files."""
    sheet = np.asarray(Image.open(finished.output / "overview_test.png"))
    manifest = [f"test_{row:03d}" for row in (0, 3, 1, 4, 2)]  # class by class
    for record_id in manifest[:2]:
        picture = cv2.imread(str(finished.output / f"gradcam/{record_id}/class_0.png"))[..., ::-1]
        assert holds(sheet, np.ascontiguousarray(picture), width=194), record_id


def holds(sheet: np.ndarray, picture: np.ndarray, *, width: int) -> bool:
    """Whether a square picture is somewhere on a sheet, enlarged to a width."""
    large = cv2.resize(picture, (width, width), interpolation=cv2.INTER_CUBIC)
    corners = np.argwhere((sheet[:-width, :-width] == large[0, 0]).all(-1))
    return any((sheet[y : y + width, x : x + width] == large).all() for y, x in corners)


def test_a_sheet_that_is_gone_is_drawn_again_and_nothing_else(
    workspace: Workspace, finished: Workspace
) -> None:
    shutil.copytree(finished.output, workspace.output)
    expected = artifacts(finished.output)
    (workspace.output / "overview_val.png").unlink()
    before = snapshot(workspace.output)
    outcome = workspace.run(EXPERIMENT, CKPT)
    assert outcome.exit_code == 0, outcome.text
    assert artifacts(workspace.output) == expected
    after = snapshot(workspace.output)
    changed = {name for name in after if after[name] != before.get(name)}
    assert "overview_val.png" in changed
    assert not {name for name in changed if name.endswith((".pt", ".h5")) or "/class_" in name}
    assert "overview_test.png" not in changed
    assert "Complete: nothing to do" in workspace.run(EXPERIMENT, CKPT).text


def test_a_picture_that_is_gone_leaves_its_place_empty(
    workspace: Workspace, finished: Workspace
) -> None:
    shutil.copytree(finished.output, workspace.output)
    shutil.rmtree(workspace.output / "gradcam")
    shutil.rmtree(workspace.output / "attention_maps")
    (workspace.output / "overview_val.png").unlink()
    assert workspace.run(EXPERIMENT, CKPT).exit_code == 0
    emptier = (workspace.output / "overview_val.png").read_bytes()
    assert emptier != (finished.output / "overview_val.png").read_bytes()
    assert np.asarray(Image.open(io.BytesIO(emptier))).shape[1] == 1800


@pytest.mark.parametrize(
    ("options", "columns"),
    [
        (["generate_gradcam=false"], 2),
        (["generate_attention=false"], 3),
        (["generate_gradcam=false", "generate_attention=false"], 1),
        (["generate_embeddings=false", "target_classes=predicted"], 4),
        (["target_classes=[0]", "gradcam.style=heatmap"], 4),
        (["attention.method=rollout"], 4),
    ],
)
def test_kinds_that_are_off_have_no_column(
    workspace: Workspace, options: list[str], columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Sheet] = []
    draw = sheet_module.draw_sheet

    def keep(sheet: Sheet) -> np.ndarray:
        drawn.append(sheet)
        return draw(sheet)

    monkeypatch.setattr(sheet_module, "draw_sheet", keep)
    outcome = workspace.run(EXPERIMENT, CKPT, "splits=[test]", *options)
    assert outcome.exit_code == 0, outcome.text
    assert sheets(workspace.output) == ["overview_test.png"]
    (sheet,) = drawn
    assert len(sheet.columns) == columns
    assert [card.title for card in sheet.cards] == [f"test_{row:03d}" for row in (0, 3, 1, 4, 2)]
    for card in sheet.cards:
        true, predicted = card.subtitle.split(" · ")[1:]
        assert card.is_wrong == (true.split()[1] != predicted.split()[1])
        assert card.subtitle.startswith("✗ wrong" if card.is_wrong else "✓ right")


def test_single_records_have_no_sheet_and_leave_those_of_splits_alone(
    workspace: Workspace, finished: Workspace
) -> None:
    assert workspace.run(EXPERIMENT, CKPT, "record_id=test_001").exit_code == 0
    assert sheets(workspace.output) == []
    shutil.rmtree(workspace.output)
    shutil.copytree(finished.output, workspace.output)
    (workspace.output / "overview_test.png").unlink()
    before = snapshot(workspace.output)
    assert workspace.run(EXPERIMENT, CKPT, "record_id=test_001").exit_code == 0
    after = snapshot(workspace.output)
    assert "overview_test.png" not in after
    assert after["overview_train.png"] == before["overview_train.png"]


def test_other_settings_replace_the_sheets(workspace: Workspace, finished: Workspace) -> None:
    shutil.copytree(finished.output, workspace.output)
    before = artifacts(workspace.output)
    outcome = workspace.run(
        EXPERIMENT, CKPT, "splits=[test]", "gradcam.colormap=jet", "overwrite=true"
    )
    assert outcome.exit_code == 0, outcome.text
    assert sheets(workspace.output) == ["overview_test.png"]
    assert artifacts(workspace.output)["overview_test.png"] != before["overview_test.png"]
    assert "not of this program" not in outcome.text


def test_a_file_of_a_user_beside_the_sheets_is_left_alone(workspace: Workspace) -> None:
    assert workspace.run(EXPERIMENT, CKPT, "splits=[test]").exit_code == 0
    theirs = workspace.output / "my_overview_test.png"
    theirs.write_bytes(b"mine")
    outcome = workspace.run(
        EXPERIMENT, CKPT, "splits=[test]", "seed=1", "limit=3", "overwrite=true"
    )
    assert outcome.exit_code == 0, outcome.text
    assert theirs.read_bytes() == b"mine"
    assert "my_overview_test.png is not of this program" in outcome.text


def test_without_labels_and_classifier_the_sheet_shows_what_there_is(
    workspace: Workspace, tmp_path: Path
) -> None:
    write_checkpoint(tmp_path / "headless.ckpt", classes=0)
    images = np.random.default_rng(0).integers(0, 256, (20, IMAGE_SIZE, IMAGE_SIZE), np.uint8)
    with h5py.File(tmp_path / "unlabelled_test.h5", "w") as file:
        file["images"] = images
    outcome = workspace.run(
        EXPERIMENT,
        "ckpt_path=headless.ckpt",
        f"data.path={tmp_path / 'unlabelled_test.h5'}",
        "generate_gradcam=false",
    )
    assert outcome.exit_code == 0, outcome.text
    assert sheets(workspace.output) == ["overview_test.png"]
    sheet = np.asarray(Image.open(workspace.output / "overview_test.png"))
    chosen, left_out = (np.repeat(images[row][..., None], 3, axis=-1) for row in (0, 2))
    assert holds(sheet, chosen, width=258)
    assert not holds(sheet, left_out, width=258)


def test_a_cnn_has_no_column_of_attention(workspace: Workspace, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "cnn.ckpt", backbone="test_resnet")
    outcome = workspace.run(
        EXPERIMENT, "ckpt_path=cnn.ckpt", "model.backbone=test_resnet", "splits=[test]"
    )
    assert outcome.exit_code == 0, outcome.text
    assert sheets(workspace.output) == ["overview_test.png"]


def test_records_that_failed_are_not_on_it(workspace: Workspace, tmp_path: Path) -> None:
    everything = tuple(f"test_{row:03d}" for row in range(RECORDS["test"]))
    write_images(tmp_path / "broken.h5", broken=everything)
    outcome = workspace.run(
        EXPERIMENT, CKPT, f"data.path={tmp_path / 'broken.h5'}", "max_failures=1"
    )
    assert outcome.exit_code == 0, outcome.text
    heights = {
        split: np.asarray(Image.open(workspace.output / f"overview_{split}.png")).shape[0]
        for split in SPLITS
    }
    assert heights["test"] < 400 < heights["val"]


def test_other_options_of_a_page_draw_it_anew_and_nothing_else(
    workspace: Workspace, finished: Workspace
) -> None:
    shutil.copytree(finished.output, workspace.output)
    before = snapshot(workspace.output)
    outcome = workspace.run(EXPERIMENT, CKPT, "pages.overview.records=2")
    assert outcome.exit_code == 0, outcome.text
    after = snapshot(workspace.output)
    changed = {name for name in after if name.endswith(".png") and after[name] != before[name]}
    assert changed == set(ALL)
    again = workspace.run(EXPERIMENT, CKPT, "pages.overview.records=2")
    assert "Complete: nothing to do." in again.text
