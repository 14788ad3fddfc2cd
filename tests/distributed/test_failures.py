"""Records that cannot be used are counted, listed, and harm no other."""

from __future__ import annotations

import csv
import errno
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from helpers.workspace import CKPT, EXPERIMENT, Workspace, write_images

BROKEN = ("train_003", "train_004", "val_006")


@pytest.fixture
def options(tmp_path: Path) -> tuple[str, ...]:
    write_images(tmp_path / "broken.h5", broken=BROKEN)
    return (EXPERIMENT, CKPT, f"data.path={tmp_path / 'broken.h5'}")


def assert_all_else_is_complete(output: Path) -> None:
    rows = pq.read_table(output / "manifest.parquet").to_pylist()
    assert len(rows) == 36
    failed = {row["record_id"]: row for row in rows if row["error"]}
    assert tuple(failed) == BROKEN
    for row in failed.values():
        assert "NaN or Inf among the pixels" in row["error"]
        assert row["row"] is None
        assert row["embeddings"] == row["gradcam"] == row["attention"] == "failed"
        assert row["gradcam_files"] == []
    with (output / "failures.csv").open() as file:
        listed = list(csv.DictReader(file))
    assert tuple(row["record_id"] for row in listed) == BROKEN
    assert {row["stage"] for row in listed} == {"read"}
    content = torch.load(output / "embeddings" / "train_embeddings.pt", weights_only=True)
    expected = [f"train_{row:03d}" for row in range(24) if row not in (3, 4)]
    assert content["record_ids"] == expected
    assert content["embeddings"].isfinite().all()
    assert not (output / "gradcam" / "train_003").exists()
    assert (output / "gradcam" / "train_005" / "class_0.png").exists()
    summary = (output / "summary.md").read_text()
    assert "- `val_006` (val, read): NaN or Inf among the pixels" in summary


def test_too_many_failures_end_in_1_with_all_else_complete(
    workspace: Workspace, options: tuple[str, ...]
) -> None:
    outcome = workspace.run(*options)
    assert outcome.exit_code == 1, outcome.text
    assert "3 of 36 records failed, more than max_failures=0.01 allows" in outcome.text
    assert "The first, train_003: NaN or Inf among the pixels" in outcome.text
    assert "failures.csv" in outcome.text
    assert "Traceback" not in outcome.text
    assert_all_else_is_complete(workspace.output)
    assert not (workspace.output / "_SUCCESS.json").exists()

    accepted = workspace.run(*options, "max_failures=0.1")
    assert accepted.exit_code == 0, accepted.text
    assert (workspace.output / "_SUCCESS.json").exists()


def test_few_failures_end_in_0(workspace: Workspace, options: tuple[str, ...]) -> None:
    outcome = workspace.run(*options, "max_failures=0.1")
    assert outcome.exit_code == 0, outcome.text
    assert "36 of 36 records (100 %)" in outcome.text
    assert "Done: 33 records, 3 failed" in outcome.text
    assert_all_else_is_complete(workspace.output)
    assert "Complete: nothing to do" in workspace.run(*options, "max_failures=0.1").text


def test_a_single_record_that_fails_is_told_with_its_reason(
    workspace: Workspace, options: tuple[str, ...]
) -> None:
    outcome = workspace.run(*options, "record_id=train_004")
    assert outcome.exit_code == 1
    assert "1 of 1 records failed" in outcome.text
    assert "train_004: NaN or Inf among the pixels" in outcome.text
    assert "failures.csv" not in outcome.text
    assert not list(workspace.output.rglob("*.pt"))
    again = workspace.run(*options, "record_id=train_004")
    assert again.exit_code == 1, "it is not complete the second time either"
    beside = workspace.run(*options, "record_id=train_005")
    assert beside.exit_code == 0, beside.text


def test_nothing_readable_is_refused_before_any_work(workspace: Workspace, tmp_path: Path) -> None:
    everything = tuple(f"train_{row:03d}" for row in range(24))
    write_images(tmp_path / "hopeless.h5", broken=everything)
    outcome = workspace.run(
        EXPERIMENT, CKPT, f"data.path={tmp_path / 'hopeless.h5'}", "splits=[train]"
    )
    assert outcome.exit_code == 2
    assert "None of the first 24 records can be read. The first, train_000: NaN" in outcome.text
    assert not workspace.output.exists()


def test_a_good_split_does_not_make_a_failed_one_complete(
    workspace: Workspace, options: tuple[str, ...]
) -> None:
    assert workspace.run(*options, "splits=[train]").exit_code == 1
    assert workspace.run(*options, "splits=[test]").exit_code == 1
    assert not (workspace.output / "_SUCCESS.json").exists()
    assert workspace.run(*options, "splits=[train]").exit_code == 1
    assert workspace.run(*options, "splits=[train,test]", "max_failures=0.1").exit_code == 0


def test_a_shard_that_fails_is_tried_again_and_then_named(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that stops answering in the middle of a run, for a while or for good."""
    calls = []

    def silent_disk(*arguments: object, **options: object) -> None:
        calls.append(1)
        raise OSError(errno.EIO, "Input/output error", "out")

    monkeypatch.setattr("artifactgen.worker.sync_filesystem", silent_disk)
    outcome = workspace.run(EXPERIMENT, CKPT, "splits=[val]")
    assert outcome.exit_code == 1
    assert "Shard val-000000: OSError" in outcome.text
    assert "Resume with" in outcome.text
    assert len(calls) == 3
    monkeypatch.undo()
    assert workspace.run(EXPERIMENT, CKPT, "splits=[val]").exit_code == 0


def test_a_deleted_picture_of_an_interrupted_run_is_drawn_again(workspace: Workspace) -> None:
    assert workspace.run(EXPERIMENT, CKPT, "splits=[val]").exit_code == 0
    expected = {p.name: p.read_bytes() for p in (workspace.output / "gradcam/val_001").iterdir()}
    assert workspace.run(EXPERIMENT, CKPT, "splits=[val]").text.count("Complete") == 1
    (workspace.output / "embeddings" / "val_embeddings.pt").unlink()
    shutil.rmtree(workspace.output / "gradcam" / "val_001")
    assert workspace.run(EXPERIMENT, CKPT, "splits=[val]").exit_code == 0
    found = {p.name: p.read_bytes() for p in (workspace.output / "gradcam/val_001").iterdir()}
    assert found == expected


def test_without_a_classifier_the_number_of_classes_is_of_no_concern(workspace: Workspace) -> None:
    refused = workspace.run(EXPERIMENT, CKPT, "model.num_classes=0")
    assert refused.exit_code == 2
    assert "generate_gradcam=false" in refused.text
    done = workspace.run(EXPERIMENT, CKPT, "model.num_classes=0", "generate_gradcam=false")
    assert done.exit_code == 0, done.text
