"""Two users, with a job each on the same two nodes at the same time."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers.linux_user import LinuxUser
from helpers.site import LAUNCHER, RESOURCES, Site, wait_until
from helpers.workspace import CKPT, EXPERIMENT, Workspace, assert_exact

pytestmark = [pytest.mark.slurm, pytest.mark.ray]


def give(workspace: Workspace, user: LinuxUser) -> Path:
    """A copy of a workspace for a user, whose experiment reads a copy of the data."""
    own = user.folder / "own"
    shutil.copytree(workspace.root, own)
    for file in own.rglob("my_experiment.yaml"):
        found = re.search(r"path: (.*/images\.h5)", text := file.read_text("utf-8"))
        assert found
        shutil.copy(found[1], own / "images.h5")
        file.write_text(text.replace(found[1], str(own / "images.h5")), "utf-8")
    for path in (own, *own.rglob("*")):
        shutil.chown(path, user.name)
    return own


def test_they_do_not_meet(site: Site, finished: Workspace, other_user: LinuxUser) -> None:
    theirs = give(site.workspace, other_user)
    program = [str(other_user.python), "-m", "distributed.launch", "--config-dir", "own"]
    command = [*program, LAUNCHER, EXPERIMENT, CKPT, "hydra.launcher.nodes=2", *RESOURCES]
    log = theirs / "command.log"
    with log.open("wb") as file:
        started = subprocess.Popen(
            [*other_user.command("env", "-C", str(theirs), *command)], stdout=file, stderr=file
        )
    ours = site.submit()
    wait_until(
        lambda: site.slurm.run("squeue", "--noheader", "--format=%T").split() == ["RUNNING"] * 2,
        "one job after the other",
    )
    outcome = ours.finish()
    assert outcome.exit_code == 0, outcome.text
    assert started.wait(240) == 0, log.read_text()
    heads = [
        found[1]
        for text in (outcome.text, log.read_text())
        if (found := re.search(r"its head is (\S+);", text))
    ]
    assert len(set(heads)) == 2
    assert_exact(site.output, finished.output)
    assert_exact(theirs / "artifacts" / "my_experiment", finished.output)
    site.require_nothing_left(ours.job)
    wait_until(lambda: not other_user.processes(), "their processes")
    assert list(other_user.home.iterdir()) == []
