"""Runs that are killed, interrupted or started twice: the same bytes, and only what was missing."""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.workspace import (
    CKPT,
    EXPERIMENT,
    RECORDS,
    Started,
    Workspace,
    assert_exact,
    entries,
    snapshot,
)

from artifactgen.device import find_devices, resolve_precision
from distributed import status

CPU = find_devices("cpu").name
SHARDS = sum(-(-records // 2) for records in RECORDS.values())
"""With batches of two records."""


def start_and_wait(workspace: Workspace, *, shards: int) -> Started:
    started = workspace.start(EXPERIMENT, CKPT)
    done = f"{shards} shards"
    started.wait_for(lambda: len(entries(workspace.output)) >= shards, what=done)
    return started


@pytest.mark.parametrize("seed", range(3))
def test_a_killed_run_goes_on_where_it_was(
    workspace: Workspace, finished: Workspace, seed: int
) -> None:
    choose = random.Random(seed)
    started = start_and_wait(workspace, shards=choose.randrange(1, SHARDS - 4))
    time.sleep(choose.random() * 0.1)
    started.signal_group(signal.SIGKILL)
    assert started.finish().exit_code == -signal.SIGKILL
    done = {path: path.stat().st_mtime_ns for path in entries(workspace.output)}
    assert 0 < len(done) < SHARDS
    assert not (workspace.output / "_SUCCESS.json").exists()
    of_train = len(entries(workspace.output, "train"))
    *scopes, last = status.report(workspace.output)
    train = f"train: {of_train} of 12 shards, "
    assert "train: complete" in " ".join(scopes) or any(line.startswith(train) for line in scopes)
    assert last == "Not running, not complete: run the same command again to resume."

    outcome = workspace.run(EXPERIMENT, CKPT)
    assert outcome.exit_code == 0, outcome.text
    left = SHARDS - len(done)
    assert f"Resuming: {len(done)} of {SHARDS} shards done, {left} left" in outcome.text
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert_exact(workspace.output, finished.output)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_says_how_to_resume(
    workspace: Workspace, finished: Workspace, number: signal.Signals
) -> None:
    started = start_and_wait(workspace, shards=2)
    begun = time.monotonic()
    started.signal_group(number)
    outcome = started.finish()
    assert time.monotonic() - begun < 20
    assert outcome.exit_code == 130
    command = f"generate_artifacts --config-dir {workspace.conf} {EXPERIMENT} {CKPT}"
    assert outcome.text.endswith(f"Resume with:\n  {command}\n")
    assert "Traceback" not in outcome.text
    assert workspace.run(EXPERIMENT, CKPT).exit_code == 0
    assert_exact(workspace.output, finished.output)


def test_two_runs_at_once_on_one_directory(workspace: Workspace, finished: Workspace) -> None:
    started = start_and_wait(workspace, shards=1)
    started.process.send_signal(signal.SIGSTOP)  # it is at work, and cannot end meanwhile
    before = snapshot(workspace.output)
    refused = workspace.run(EXPERIMENT, CKPT)
    told = list(status.report(workspace.output))
    after = snapshot(workspace.output)
    started.process.send_signal(signal.SIGCONT)
    assert refused.exit_code == 2, refused.text
    assert "Another run is writing to" in refused.text
    assert f"pid {started.process.pid}" in refused.text
    assert after == before
    assert any(line.startswith("Running: host ") for line in told)
    assert started.finish().exit_code == 0
    assert_exact(workspace.output, finished.output)


@pytest.fixture(scope="module")
def interrupted(
    tmp_path_factory: pytest.TempPathFactory, make_workspace: Callable[[Path], Workspace]
) -> Workspace:
    """A run that was killed in its middle."""
    workspace = make_workspace(tmp_path_factory.mktemp("interrupted"))
    started = start_and_wait(workspace, shards=5)
    started.signal_group(signal.SIGKILL)
    started.finish()
    return workspace


def test_a_damaged_shard_is_done_again_and_no_other(
    workspace: Workspace, finished: Workspace, interrupted: Workspace
) -> None:
    shutil.copytree(interrupted.output, workspace.output)
    _first, second, third, *rest = entries(workspace.output, "train")
    shard = workspace.output / ".artifactgen/scopes/train/shards/train-000000.h5"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    second.write_text("{")
    third.unlink()
    kept = {path: path.stat().st_mtime_ns for path in rest}
    assert workspace.run(EXPERIMENT, CKPT).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in rest} == kept
    assert_exact(workspace.output, finished.output)


def test_flipped_bits_of_pictures_are_noticed_and_mended(
    workspace: Workspace, finished: Workspace, interrupted: Workspace
) -> None:
    shutil.copytree(interrupted.output, workspace.output)
    rng = random.Random(0)
    pictures = sorted(workspace.output.glob("gradcam/train_00*/*.png"))
    for path in rng.sample(pictures, 6):
        content = bytearray(path.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
    assert workspace.run(EXPERIMENT, CKPT).exit_code == 0
    assert_exact(workspace.output, finished.output)


def test_a_lost_result_is_made_again(workspace: Workspace, finished: Workspace) -> None:
    shutil.copytree(finished.output, workspace.output)
    lost = workspace.output / "embeddings" / "val_embeddings.pt"
    lost.unlink()
    kept = workspace.output / "embeddings" / "train_embeddings.pt"
    before = kept.stat().st_mtime_ns
    assert workspace.run(EXPERIMENT, CKPT).exit_code == 0
    assert kept.stat().st_mtime_ns == before
    assert_exact(workspace.output, finished.output)


def changed_once_planned(workspace: Workspace, shared: Path) -> threading.Thread:
    """Puts another checkpoint in the place of the run's as soon as there is a plan."""
    link = workspace.root / "path" / "to" / "model.ckpt"
    state = workspace.output / ".artifactgen"

    def replace() -> None:
        while not (state / "scopes").exists():
            time.sleep(0.0005)
        link.unlink()
        link.symlink_to(shared / "b.ckpt")

    thread = threading.Thread(target=replace)
    thread.start()
    return thread


@pytest.mark.ray
def test_a_checkpoint_that_changes_before_the_workers_load_it_ends_the_run(
    workspace: Workspace, shared: Path
) -> None:
    """Planned with one, started with another: between the two lies a queue on a cluster."""
    thread = changed_once_planned(workspace, shared)
    outcome = workspace.run(EXPERIMENT, CKPT, "cluster=ray", "cluster.workers=1")
    thread.join()
    assert outcome.exit_code == 1, outcome.text
    assert "changed while the job was running" in outcome.text
    assert "Resume with:\n  generate_artifacts" in outcome.text
    assert entries(workspace.output) == []


def test_in_one_process_the_checkpoint_is_the_one_that_was_planned_with(
    workspace: Workspace, shared: Path, finished: Workspace
) -> None:
    thread = changed_once_planned(workspace, shared)
    outcome = workspace.run(EXPERIMENT, CKPT)
    thread.join()
    assert outcome.exit_code == 0, outcome.text
    assert_exact(workspace.output, finished.output)


def test_a_directory_is_not_resumed_on_another_kind_of_device(workspace: Workspace) -> None:
    assert workspace.run(EXPERIMENT, CKPT, "splits=[train]").exit_code == 0
    path = workspace.output / ".artifactgen" / "calibrated.json"
    calibrated = json.loads(path.read_text("utf-8"))
    for device, remedy in (
        ("NVIDIA H100 80GB HBM3", "Set accelerator=gpu, or"),
        ("cpu (AVX9)", "Go on on a machine of that kind, or"),
    ):
        path.write_text(json.dumps({**calibrated, "device": device}), "utf-8")
        outcome = workspace.run(EXPERIMENT, CKPT, "splits=[val]")
        assert outcome.exit_code == 2
        assert f"was begun on {device}, and this would go on on {CPU}, which" in outcome.text
        assert remedy in outcome.text


def test_a_directory_of_an_older_version_which_knows_less_of_its_device_is_gone_on_with(
    workspace: Workspace, finished: Workspace
) -> None:
    assert workspace.run(EXPERIMENT, CKPT, "splits=[train]").exit_code == 0
    state = workspace.output / ".artifactgen"
    calibrated = json.loads((state / "calibrated.json").read_text("utf-8"))
    (state / "calibrated.json").write_text(json.dumps({**calibrated, "device": "cpu"}), "utf-8")
    assert "Complete: nothing to do." in workspace.run(EXPERIMENT, CKPT, "splits=[train]").text
    assert list(status.report(workspace.output))[-1] == "Complete."
    outcome = workspace.run(EXPERIMENT, CKPT)
    assert outcome.exit_code == 0, outcome.text
    assert_exact(workspace.output, finished.output)
    assert json.loads((state / "calibrated.json").read_text("utf-8"))["device"] == CPU


def test_status_of_a_complete_run(finished: Workspace, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, sys.argv = sys.argv, ["status", str(finished.output)]
    try:
        status.main()
    finally:
        sys.argv = arguments
    assert capsys.readouterr().out.splitlines() == [
        "test: complete, 5 records, 0 failed",
        "train: complete, 24 records, 0 failed",
        "val: complete, 7 records, 0 failed",
        "Complete.",
    ]


def test_status_of_single_records(workspace: Workspace) -> None:
    assert workspace.run(EXPERIMENT, CKPT, "record_id=val_001").exit_code == 0
    assert list(status.report(workspace.output)) == [
        "record=val_001: complete, 1 records, 0 failed",
        "Complete.",
    ]


def test_status_of_a_folder_of_someone_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["status", str(tmp_path)])
    with pytest.raises(SystemExit) as exit_:
        status.main()
    assert exit_.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == f"{tmp_path} is not an output directory of this program.\n"


def test_success_lists_the_splits_of_the_directory(finished: Workspace) -> None:
    success = json.loads((finished.output / "_SUCCESS.json").read_text())
    assert sorted(success["splits"]) == sorted(RECORDS)


def test_what_was_calibrated_first_holds_for_splits_that_come_later(workspace: Workspace) -> None:
    """Other splits show the preflight other records: it must not calibrate anything anew."""
    first = workspace.run(EXPERIMENT, CKPT, "splits=[train]")
    assert first.exit_code == 0, first.text
    assert "route class_token" in first.text
    path = workspace.output / ".artifactgen" / "calibrated.json"
    calibrated = json.loads(path.read_text("utf-8"))
    assert calibrated["artifacts"]["gradcam"] == {"layer": "blocks.5.norm1", "route": "class_token"}
    devices = find_devices("cpu")
    assert calibrated["device"] == devices.name
    assert calibrated["precision"] == resolve_precision("auto", devices)
    calibrated["artifacts"]["gradcam"]["route"] = (
        "tail"  # as if its records had not agreed with the closed form
    )
    path.write_text(json.dumps(calibrated), "utf-8")
    later = workspace.run(EXPERIMENT, CKPT, "splits=[val]")
    assert later.exit_code == 0, later.text
    assert "route tail" in later.text
    anew = workspace.run(EXPERIMENT, CKPT, "splits=[val]", "pooling=cls", "overwrite=true")
    assert anew.exit_code == 0, anew.text
    assert "route class_token" in anew.text


def test_a_damaged_record_of_what_was_calibrated_is_made_anew(workspace: Workspace) -> None:
    assert workspace.run(EXPERIMENT, CKPT, "splits=[train]").exit_code == 0
    path = workspace.output / ".artifactgen" / "calibrated.json"
    path.write_text('{"gradcam": {"ro', "utf-8")
    outcome = workspace.run(EXPERIMENT, CKPT, "splits=[val]")
    assert outcome.exit_code == 0, outcome.text
    assert json.loads(path.read_text("utf-8"))["artifacts"]["gradcam"]["route"] == "class_token"


@pytest.mark.parametrize("content", ["null", "[]", '{"device": 1}', '{"artifacts": null}'])
def test_what_was_calibrated_is_read_without_trust(workspace: Workspace, content: str) -> None:
    assert workspace.run(EXPERIMENT, CKPT, "splits=[train]").exit_code == 0
    path = workspace.output / ".artifactgen" / "calibrated.json"
    path.write_text(content, "utf-8")
    outcome = workspace.run(EXPERIMENT, CKPT, "splits=[val]")
    assert outcome.exit_code == 0, outcome.text


def test_a_default_that_is_another_now_is_noticed(workspace: Workspace) -> None:
    """As after an update of timm, or of a class of the user's."""
    assert workspace.run(EXPERIMENT, CKPT, "splits=[train]").exit_code == 0
    path = workspace.output / ".artifactgen" / "calibrated.json"
    calibrated = json.loads(path.read_text("utf-8"))
    calibrated["resolved"]["normalization"]["mean"] = [0.4, 0.4, 0.4]
    path.write_text(json.dumps(calibrated), "utf-8")
    outcome = workspace.run(EXPERIMENT, CKPT, "splits=[val]")
    assert outcome.exit_code == 2
    assert "normalization.mean: [0.4, 0.4, 0.4] → [0.5, 0.5, 0.5]" in outcome.text
    assert "Go on with what began it" in outcome.text


def test_a_finished_run_in_a_read_only_place_is_complete(
    workspace: Workspace, finished: Workspace
) -> None:
    """As in an archive; whoever may write everywhere sees it through a read-only mount."""
    shutil.copytree(finished.output, workspace.output)
    command = [sys.executable, "-m", "distributed.launch", "--config-dir", str(workspace.conf)]
    command += [EXPERIMENT, CKPT]
    if os.geteuid() == 0:
        place = shlex.quote(str(workspace.output))
        mount = f"mount --bind {place} {place} && mount -o remount,bind,ro {place}"
        command = ["unshare", "--mount", "sh", "-c", f"{mount} && exec {shlex.join(command)}"]
    else:
        for path in (*workspace.output.rglob("*"), workspace.output):
            path.chmod(path.stat().st_mode & ~0o222)
    done = subprocess.run(command, cwd=workspace.root, capture_output=True, text=True, check=False)
    if "unshare failed" in done.stderr or "mount:" in done.stderr:
        pytest.skip("no right to mount")
    assert done.returncode == 0, done.stderr
    assert "Complete: nothing to do." in done.stderr
