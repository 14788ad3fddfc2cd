"""Failed records are done again where they are, and nothing that is good is touched."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.workspace import (
    CKPT,
    CLASSES,
    EXPERIMENT,
    IMAGE_SIZE,
    Workspace,
    artifacts,
    assert_exact,
    entries,
    snapshot,
    write_images,
)

import artifactgen.worker
import distributed.execute
from artifactgen.store.layout import Layout
from artifactgen.types import Receipt

BROKEN = ("train_003", "train_004", "val_006")
SHARDS_WITH_FAILURES = {"train-000001", "train-000002", "val-000003"}
"""With batches of two records."""
RETRY = "retry_failures=true"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "broken.h5"
    write_images(path, broken=BROKEN)
    return path


@pytest.fixture
def options(data: Path) -> tuple[str, ...]:
    return (EXPERIMENT, CKPT, f"data.path={data}")


@contextmanager
def changing(data: Path) -> Iterator[h5py.File]:
    """Put a changed copy in the place of a file, which this process may have open."""
    copy = Path(shutil.copy(data, data.with_suffix(".copy")))
    with h5py.File(copy, "r+") as file:
        yield file
    copy.replace(data)


def mend(data: Path) -> None:
    with changing(data) as file:
        for group in file.values():
            images = group["images"]
            for row in np.flatnonzero(np.isnan(images[:, 0, 0, 0])):
                images[row] = np.linspace(0, 1, IMAGE_SIZE)[:, None]


def failed(output: Path) -> list[str]:
    with (output / "failures.csv").open() as file:
        return [row["record_id"] for row in csv.DictReader(file)]


def good_files(output: Path) -> dict[str, tuple[int, int]]:
    """Ledger entries and pictures of shards without a failure, with their times."""
    in_failed = ("train_002", "train_003", "train_004", "train_005", "val_006")
    return {
        name: facts
        for name, facts in snapshot(output).items()
        if ("ledger/" in name and Path(name).stem not in SHARDS_WITH_FAILURES)
        or (name.endswith(".png") and "_" in Path(name).parent.name and facts != (0, 0))
        if not any(record in name for record in in_failed) and "overview" not in name
    }


def test_mended_records_are_done_in_the_same_directory(
    workspace: Workspace, options: tuple[str, ...], data: Path
) -> None:
    first = workspace.run(*options)
    assert first.exit_code == 1, first.text
    assert "add retry_failures=true" in first.text
    before = good_files(workspace.output)
    assert len(before) > 100
    mend(data)

    refused = workspace.run(*options, "max_failures=0.1")
    assert refused.exit_code == 2, refused.text
    told = "data.content: the files hold other bytes for the same records (retry_failures=true does"
    assert told in refused.text

    outcome = workspace.run(*options, RETRY)
    assert outcome.exit_code == 0, outcome.text
    assert "retry_failures: 3 records failed, in 3 shards" in outcome.text
    assert "Resuming: 16 of 19 shards done, 3 left" in outcome.text
    assert "hold other bytes than before. Only shards with failures are read" in outcome.text
    assert failed(workspace.output) == []
    assert good_files(workspace.output) == before
    state = workspace.output / ".artifactgen" / "scopes"
    assert not list(state.glob("*/shards")), "without failures they serve no more"

    fresh = workspace.root / "fresh"
    assert workspace.run(*options, f"output_dir={fresh}").exit_code == 0
    assert_exact(workspace.output, fresh)
    assert "Complete: nothing to do" in workspace.run(*options, RETRY).text
    assert "Complete: nothing to do" in workspace.run(*options).text


def broken_in_place_of(mended: str, file: h5py.File, broken: str) -> None:
    """Mend a record, and break another one of the same batch."""
    split = mended.partition("_")[0]
    images, rows = file[f"{split}/images"], [int(name[-3:]) for name in (mended, broken)]
    images[rows[0]] = np.linspace(0, 1, IMAGE_SIZE)[:, None]
    images[rows[1], 0, 0, 0] = np.nan


def pictures_of(output: Path, record: str) -> list[str]:
    found = [path for path in output.rglob("*.png") if record in str(path.relative_to(output))]
    return sorted(str(path.relative_to(output)) for path in found)


def test_a_record_that_is_broken_now_keeps_no_picture_of_former_bytes(
    workspace: Workspace, options: tuple[str, ...], data: Path
) -> None:
    accepted = (*options, "max_failures=0.1")
    assert workspace.run(*accepted).exit_code == 0
    assert len(pictures_of(workspace.output, "train_002")) == len(CLASSES) + 1
    with changing(data) as file:
        broken_in_place_of("train_003", file, "train_002")
    outcome = workspace.run(*accepted, RETRY)
    assert outcome.exit_code == 0, outcome.text
    assert failed(workspace.output) == ["train_002", "train_004", "val_006"]
    assert pictures_of(workspace.output, "train_002") == []
    fresh = workspace.root / "fresh"
    assert workspace.run(*accepted, f"output_dir={fresh}").exit_code == 0
    assert_exact(workspace.output, fresh)


@pytest.mark.parametrize("step", ["remove_former_pictures", "sync_filesystem", "commit"])
def test_nor_where_the_run_is_killed_between_removal_and_commit(
    workspace: Workspace,
    options: tuple[str, ...],
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    accepted = (*options, "max_failures=0.1", RETRY)
    assert workspace.run(*accepted).exit_code == 0
    with changing(data) as file:
        broken_in_place_of("train_003", file, "train_002")

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(artifactgen.worker, step, interrupt)
    assert workspace.run(*accepted).exit_code == 130
    monkeypatch.undo()
    assert workspace.run(*accepted).exit_code == 0
    assert pictures_of(workspace.output, "train_002") == []
    fresh = workspace.root / "fresh"
    assert workspace.run(*accepted, f"output_dir={fresh}").exit_code == 0
    assert_exact(workspace.output, fresh)


def test_nor_an_embedding_of_its_own(
    workspace: Workspace, options: tuple[str, ...], data: Path
) -> None:
    alone = (*options, "record_id=[train_002,train_003]", "max_failures=1")
    assert workspace.run(*alone).exit_code == 0
    with changing(data) as file:
        broken_in_place_of("train_003", file, "train_002")
    assert workspace.run(*alone, RETRY).exit_code == 0
    embeddings = [path.name for path in (workspace.output / "embeddings").iterdir()]
    assert embeddings == ["train_003_embedding.pt"]
    assert pictures_of(workspace.output, "train_002") == []


def test_records_that_fail_again_change_nothing(
    workspace: Workspace, options: tuple[str, ...]
) -> None:
    accepted = (*options, "max_failures=0.1")
    assert workspace.run(*accepted).exit_code == 0
    assert "Complete: nothing to do" in workspace.run(*accepted).text
    before, expected = good_files(workspace.output), artifacts(workspace.output)
    outcome = workspace.run(*accepted, RETRY)
    assert outcome.exit_code == 0, outcome.text
    assert "Resuming: 16 of 19 shards done, 3 left" in outcome.text
    assert "other bytes" not in outcome.text
    assert failed(workspace.output) == list(BROKEN)
    assert good_files(workspace.output) == before
    assert artifacts(workspace.output) == expected
    strict = workspace.run(*options, RETRY)
    assert strict.exit_code == 1
    assert "3 of 36 records failed" in strict.text


def test_a_retry_that_is_interrupted_goes_on(
    workspace: Workspace, options: tuple[str, ...], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert workspace.run(*options).exit_code == 1
    mend(data)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(distributed.execute, "merge", interrupt)
    assert workspace.run(*options, RETRY).exit_code == 130
    monkeypatch.undo()
    done = {path: path.stat().st_mtime_ns for path in entries(workspace.output)}
    outcome = workspace.run(*options, RETRY)
    assert outcome.exit_code == 0, outcome.text
    assert {path: path.stat().st_mtime_ns for path in entries(workspace.output)} == done
    assert failed(workspace.output) == []


def test_an_interrupted_run_is_not_gone_on_with_from_other_bytes(
    workspace: Workspace, options: tuple[str, ...], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = artifactgen.worker.commit

    def some(layout: Layout, scope: str, receipt: Receipt, *, fingerprint: str) -> None:
        if receipt.shard.name == "train-000009":
            raise KeyboardInterrupt
        commit(layout, scope, receipt, fingerprint=fingerprint)

    monkeypatch.setattr(artifactgen.worker, "commit", some)
    assert workspace.run(*options).exit_code == 130
    monkeypatch.undo()
    before = snapshot(workspace.output)
    mend(data)
    refused = workspace.run(*options, RETRY)
    assert refused.exit_code == 2, refused.text
    told = (
        "data.content: the files hold other bytes for the same records, and 10 shards are still "
        "to be done: they would be read from these bytes\n"
    )
    assert told in refused.text
    assert snapshot(workspace.output) == before
    splits = "splits=[train]"
    assert told.replace("10 shards", "3 shards") in workspace.run(*options, RETRY, splits).text


def test_files_may_be_mended_once_more_where_a_retry_was_interrupted(
    workspace: Workspace, options: tuple[str, ...], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert workspace.run(*options).exit_code == 1
    with changing(data) as file:
        file["train/images"][3] = 0.5

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(artifactgen.worker, "commit", interrupt)
    assert workspace.run(*options, RETRY).exit_code == 130
    monkeypatch.undo()
    mend(data)
    outcome = workspace.run(*options, RETRY)
    assert outcome.exit_code == 0, outcome.text
    fresh = workspace.root / "fresh"
    assert workspace.run(*options, f"output_dir={fresh}").exit_code == 0
    assert_exact(workspace.output, fresh)


def test_without_failures_other_pixels_are_refused_as_ever(
    workspace: Workspace, options: tuple[str, ...], data: Path
) -> None:
    mend(data)
    assert workspace.run(*options, "splits=[val]").exit_code == 0
    assert "Complete: nothing to do" in workspace.run(*options, "splits=[val]", RETRY).text
    with changing(data) as file:
        file["val/images"][...] = 1 - file["val/images"][...]
    for option in (RETRY, "retry_failures=false"):
        outcome = workspace.run(*options, "splits=[val]", option)
        assert outcome.exit_code == 2, outcome.text
        assert "data.content: the files hold other bytes for the same records\n" in outcome.text


def test_other_records_are_another_data_set(
    workspace: Workspace, options: tuple[str, ...], data: Path
) -> None:
    assert workspace.run(*options).exit_code == 1
    with changing(data) as file:
        file["train/record_ids"][3] = "another"
    outcome = workspace.run(*options, RETRY)
    assert outcome.exit_code == 2, outcome.text
    assert "data.identity: " in outcome.text


def test_a_single_record_is_done_again(
    workspace: Workspace, options: tuple[str, ...], data: Path
) -> None:
    alone = (*options, "record_id=train_004")
    assert workspace.run(*alone).exit_code == 1
    mend(data)
    outcome = workspace.run(*alone, RETRY)
    assert outcome.exit_code == 0, outcome.text
    assert (workspace.output / "embeddings" / "train_004_embedding.pt").exists()
    assert "Complete: nothing to do" in workspace.run(*alone, RETRY).text


def test_larger_pictures_can_be_let_in_later(workspace: Workspace) -> None:
    refused = workspace.run(EXPERIMENT, CKPT, "data.max_pixels=4095")
    assert refused.exit_code == 2
    assert "64 × 64 = 4,096 pixels are more than data.max_pixels=4095" in refused.text
    assert workspace.run(EXPERIMENT, CKPT, "splits=[val]").exit_code == 0
    again = workspace.run(EXPERIMENT, CKPT, "splits=[val]", "data.max_pixels=4096")
    assert "Complete: nothing to do" in again.text, "what is good does not depend on it"
