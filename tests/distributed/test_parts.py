"""Several jobs that share one run: the same bytes, merged once, whatever becomes of some."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from helpers.workspace import (
    CKPT,
    EXPERIMENT,
    RECORDS,
    Outcome,
    Started,
    Workspace,
    assert_exact,
    entries,
    snapshot,
)

import distributed.execute
from distributed import status
from distributed.prepare import Prepared
from distributed.run import Run

SHARDS = {split: -(-records // 2) for split, records in RECORDS.items()}
"""With batches of two records."""

RUNNER = """\
import time
from dataclasses import dataclass
from pathlib import Path

from artifactgen.types import Part
from distributed.runners.inline import Inline

@dataclass(frozen=True, kw_only=True)
class Shared(Inline):
    index: int | None = None
    count: int = 3

    def part(self):
        return None if self.index is None else Part(self.index, self.count)

    def run(self, job, tasks, workers, assembly):
        for receipt in Inline.run(self, job, tasks, workers, assembly):
            yield receipt
            while Path(f"hold{self.index}").exists():
                time.sleep(0.01)
"""


@pytest.fixture
def project(workspace: Workspace) -> Workspace:
    """A user's folder with a runner that is told which part it is."""
    conf = workspace.root / "conf"
    shutil.copytree(workspace.conf, conf)
    (workspace.root / "shared_run.py").write_text(RUNNER)
    (conf / "cluster").mkdir()
    (conf / "cluster" / "shared.yaml").write_text(
        "_target_: shared_run.Shared\nworkers: 1\nthreads_per_worker: 1\nindex: null\ncount: 3\n"
    )
    return Workspace(workspace.root, conf)


def options(index: int | None, *more: str) -> list[str]:
    part = "null" if index is None else str(index)
    return [EXPERIMENT, CKPT, "cluster=shared", f"cluster.index={part}", *more]


def start_together(project: Workspace, *more: str, parts: int = 3) -> list[Outcome]:
    started = [project.start(*options(index, *more)) for index in range(parts)]
    return [one.finish() for one in started]


def start_held(project: Workspace, index: int | None) -> Started:
    """A part that waits after its first shard, for as long as its file is there."""
    (project.root / f"hold{index}").touch()
    before = len(entries(project.output))
    started = project.start(*options(index))
    started.wait_for(lambda: len(entries(project.output)) > before, what="shard")
    return started


def release(project: Workspace, index: int | None) -> None:
    (project.root / f"hold{index}").unlink()


def assert_one_merged(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        assert outcome.exit_code == 0, outcome.text
    merging = [outcome for outcome in outcomes if "and so are all others: merging" in outcome.text]
    assert len(merging) == 1, "\n".join(outcome.text for outcome in outcomes)


def assert_equal(project: Workspace, finished: Workspace) -> None:
    assert_exact(project.output, finished.output)
    manifest = "manifest.parquet"
    assert (project.output / manifest).read_bytes() == (finished.output / manifest).read_bytes()


def test_three_at_once_leave_what_one_would(project: Workspace, finished: Workspace) -> None:
    outcomes = start_together(project)
    assert_one_merged(outcomes)
    assert_equal(project, finished)
    done = sum(int(o.text.partition(" of 19 shards")[0].rpartition(" ")[2]) for o in outcomes)
    assert done == sum(SHARDS.values()), "each shard is done by one of them"
    again = project.run(*options(1))
    assert "Complete: nothing to do." in again.text


def test_one_that_is_killed_is_submitted_again(project: Workspace, finished: Workspace) -> None:
    killed = start_held(project, 1)
    others = [project.start(*options(index)) for index in (0, 2)]
    for index, other in zip((0, 2), others, strict=True):
        outcome = other.finish()
        assert outcome.exit_code == 0, outcome.text
        assert f"Part {index + 1} of 3 is done; " in outcome.text
        assert " at work, the last one merges." in outcome.text
    killed.process.kill()
    killed.process.wait()
    release(project, 1)
    (project.output / ".artifactgen" / "tmp" / "half.png").write_bytes(b"half")
    assert not (project.output / "_SUCCESS.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in entries(project.output)}
    last = list(status.report(project.output))[-1]
    assert last == "Not running, not complete: run the same command again to resume."
    left = project.run(*options(0))
    assert left.exit_code == 0, left.text
    undone = sum(SHARDS.values()) - len(kept)
    assert f"the run is not complete: {undone} shards of part 2 of 3 left." in left.text
    assert "run the same command again" in left.text
    assert_one_merged(start_together(project))
    assert {path: path.stat().st_mtime_ns for path in kept} == kept, "nothing is done twice"
    assert_equal(project, finished)


def test_who_is_at_work_is_named_and_keeps_out_what_does_not_belong(
    project: Workspace, finished: Workspace
) -> None:
    parts = [start_held(project, 0), start_held(project, 2)]
    before = snapshot(project.output)
    refused = [
        project.run(EXPERIMENT, CKPT),
        project.run(*options(0)),
        project.run(*options(1, "cluster.count=4")),
        project.run(EXPERIMENT, CKPT, "seed=3", "overwrite=true"),
    ]
    told = list(status.report(project.output))[-1]
    after = snapshot(project.output)
    for outcome in refused:
        assert outcome.exit_code == 2, outcome.text
        assert f"pid {parts[0].process.pid}, " in outcome.text
        assert "part 1 of 3" in outcome.text
    assert "in another number of parts: this is part 2 of 4" in refused[2].text
    for part, name in zip(parts, ("1 of 3", "3 of 3"), strict=True):
        assert f"pid {part.process.pid}, " in told
        assert f"part {name}" in told
    assert after.keys() - before.keys() == {".artifactgen/lock.1"}
    assert before.items() <= after.items()
    for index in (0, 2):
        release(project, index)
    for part in parts:
        assert part.finish().exit_code == 0
    assert project.run(*options(1)).exit_code == 0
    assert_equal(project, finished)


def test_a_run_keeps_parts_out_and_either_goes_on_with_the_other(
    project: Workspace, finished: Workspace
) -> None:
    run = start_held(project, None)
    refused = project.run(*options(2))
    assert refused.exit_code == 2, refused.text
    assert f"Another run is writing to {project.output} (host " in refused.text
    assert f"pid {run.process.pid}" in refused.text
    run.signal_group(signal.SIGKILL)
    run.finish()
    release(project, None)
    kept = {path: path.stat().st_mtime_ns for path in entries(project.output)}
    part = project.run(*options(0))
    assert part.exit_code == 0, part.text
    assert "Resuming: " in part.text
    outcome = project.run(EXPERIMENT, CKPT)
    assert outcome.exit_code == 0, outcome.text
    assert "Resuming: " in outcome.text
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert_equal(project, finished)


def test_parts_without_a_shard_are_no_error(project: Workspace) -> None:
    few = ["limit=2", "cluster.count=5"]
    for index in (4, 3):
        idle = project.run(*options(index, *few))
        assert idle.exit_code == 0, idle.text
        assert f"Part {index + 1} of 5: 0 of 3 shards" in idle.text
        assert "the run is not complete: 3 shards of part 1 of 5 left." in idle.text
    assert "merging" in project.run(*options(0, *few)).text
    assert (project.output / "_SUCCESS.json").exists()


def test_other_settings_are_replaced_once_by_parts_that_start_together(
    project: Workspace, finished: Workspace
) -> None:
    assert project.run(EXPERIMENT, CKPT, "pooling=cls+mean", "limit=3").exit_code == 0
    refused = start_together(project, parts=1)
    assert refused[0].exit_code == 2
    assert "other settings" in refused[0].text
    outcomes = start_together(project, "overwrite=true")
    assert_one_merged(outcomes)
    assert sum(outcome.text.count("removing what other settings") for outcome in outcomes) == 1
    assert_equal(project, finished)


ROUNDS = 10
IN_ROUNDS = """
import multiprocessing, os, sys
from distributed.launch import run_command

def part(start, index, directory, arguments):
    os.dup2(os.open(f"{directory}.{index}.log", os.O_CREAT | os.O_WRONLY), 2)
    start.wait()
    os._exit(run_command([*arguments, f"cluster.index={index}", f"output_dir={directory}"]))

rounds, *told = sys.argv[1:]
assert run_command([*told, "dry_run=true"]) == 0  # imports all, before parts are forked
context = multiprocessing.get_context("fork")
for number in range(int(rounds)):
    start = context.Barrier(3)
    arguments = [(start, index, f"round{number}", told) for index in range(3)]
    parts = [context.Process(target=part, args=each) for each in arguments]
    for each in parts:
        each.start()
    for each in parts:
        each.join()
        assert each.exitcode == 0, each.exitcode
"""


def test_round_after_round_the_last_one_merges(project: Workspace) -> None:
    few = ["limit=6", "generate_gradcam=false", "generate_attention=false"]
    arguments = ["--config-dir", str(project.conf), EXPERIMENT, CKPT, "cluster=shared", *few]
    subprocess.run(
        [sys.executable, "-c", IN_ROUNDS, str(ROUNDS), *arguments],
        cwd=project.root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        check=True,
        timeout=300,
    )
    assert project.run(EXPERIMENT, CKPT, *few).exit_code == 0
    for number in range(ROUNDS):
        logs = [project.root / f"round{number}.{index}.log" for index in range(3)]
        assert_one_merged([Outcome(0, log.read_text()) for log in logs])
        assert_exact(project.root / f"round{number}", project.output)


def test_a_part_verifies_its_own_shards_and_the_last_one_all(
    project: Workspace, finished: Workspace
) -> None:
    for index in (0, 1):
        assert project.run(*options(index)).exit_code == 0
    damaged = project.output / ".artifactgen/scopes/train/shards/train-000001.h5"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    of_part = project.run(*options(2))
    assert of_part.exit_code == 0, of_part.text
    assert "the run is not complete: 1 shard of part 2 of 3 left." in of_part.text
    mended = project.run(*options(1))
    assert "shards done, 1 left" in mended.text
    assert "merging" in mended.text
    assert_equal(project, finished)


@pytest.fixture
def calibrated_meanwhile(
    project: Workspace, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[Prepared]]:
    """Another part does its work, and decides otherwise, once this one is prepared."""
    prepared: list[Prepared] = []
    original = distributed.execute.prepare

    def prepare(run: Run) -> Prepared:
        prepared.append(original(run))
        assert project.start(*options(0)).finish().exit_code == 0
        path = run.layout.calibrated
        decided = json.loads(path.read_text("utf-8"))
        decided["artifacts"]["gradcam"]["route"] = "tail"
        path.write_text(json.dumps(decided), "utf-8")
        return prepared[0]

    monkeypatch.setattr(distributed.execute, "prepare", prepare)
    yield prepared
    monkeypatch.undo()


def test_what_another_part_has_decided_meanwhile_is_taken_over(
    project: Workspace, calibrated_meanwhile: list[Prepared]
) -> None:
    outcome = project.run(*options(1))
    assert outcome.exit_code == 0, outcome.text
    assert len(calibrated_meanwhile) == 1
    assert "Another part has calibrated otherwise" in outcome.text
    told = [line for line in outcome.lines if "route " in line]
    assert ["class_token" in told[0], "tail" in told[1]] == [True, True]
    assert "shards of part 3 of 3 left" in outcome.text


def test_what_no_jobs_can_share_is_wrong_use(project: Workspace) -> None:
    for option in ("record_id=val_001", "retry_failures=true"):
        outcome = project.run(*options(0, option))
        assert outcome.exit_code == 2, outcome.text
        assert "Set cluster.jobs=1." in outcome.text
        assert not project.output.exists()


def test_a_plan_of_a_part_changes_nothing(project: Workspace) -> None:
    outcome = project.run(*options(1, "dry_run=true", "strict=false"))
    assert outcome.exit_code == 0, outcome.text
    assert "Part 2 of 3: 6 of 19 shards" in outcome.text
    assert not project.output.exists()
