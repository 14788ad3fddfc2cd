"""A worker that dies is told with its shard."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.workspace import CKPT, EXPERIMENT, Workspace, assert_exact, with_source

from artifactgen.types import Shard
from distributed.runners.deaths import Begun, cause, oom_kills

A, B = Shard("test", 0, 0, 2), Shard("test", 1, 2, 4)

KILLER = """
from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from artifactgen.data.hdf5 import Hdf5


@dataclass(frozen=True, slots=True, kw_only=True)
class Killer(Hdf5):
    signal: int
    deaths: str
    at_most: int

    def read(self, catalog, split, start, stop):
        deaths = Path(self.deaths)
        in_a_worker = os.environ.get("ARTIFACTGEN_RAY")
        if in_a_worker and split == "test" and start <= 3 < stop:
            times = len(deaths.read_text()) if deaths.exists() else 0
            if times < self.at_most:
                deaths.write_text("x" * (times + 1))
                os.kill(os.getpid(), self.signal)
        return Hdf5.read(self, catalog, split, start, stop)
"""
OPTIONS = "signal: ???\ndeaths: ???\nat_most: ???\n"


@pytest.fixture
def killer(workspace: Workspace) -> Workspace:
    """With a source that kills its process at one record of the second shard of `test`."""
    return with_source(workspace, "killer", KILLER, OPTIONS)


def kill(workspace: Workspace, number: signal.Signals, *, at_most: int) -> list[str]:
    deaths = workspace.root / "deaths"
    options = [f"data.signal={int(number)}", f"data.deaths={deaths}", f"data.at_most={at_most}"]
    return [EXPERIMENT, CKPT, "cluster=ray", "cluster.workers=2", *options]


@pytest.mark.ray
def test_a_record_that_kills_its_process_once_does_no_harm(
    killer: Workspace, finished: Workspace
) -> None:
    outcome = killer.run(*kill(killer, signal.SIGKILL, at_most=1))
    assert outcome.exit_code == 0, outcome.text
    assert "Shard test-000001 is done; its worker had died once." in outcome.text
    assert_exact(killer.output, finished.output)


@pytest.mark.ray
def test_a_record_that_kills_its_process_each_time_is_told_by_its_shard(
    killer: Workspace, finished: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    command = kill(killer, signal.SIGSEGV, at_most=4)
    outcome = killer.run(*command)
    assert outcome.exit_code == 1, outcome.text
    told = "Shard test-000001 (rows 2 to 3 of test): its worker died at each of 4 tries.\n"
    assert f"{told}It crashed with SIGSEGV" in outcome.text
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", ""), "of Ray, which writes past our lines"
    assert killer.run(*command).exit_code == 0
    assert_exact(killer.output, finished.output)


def test_the_shards_under_way_are_those_begun_and_not_ended(tmp_path: Path) -> None:
    begun = Begun(tmp_path)
    with begun(A):
        assert begun.under_way([A, B]) == [A]
    assert begun.under_way([A, B]) == []
    with pytest.raises(KeyError), begun(B):
        raise KeyError
    assert begun.under_way([A, B]) == [], "an error is no death"
    die = "import os, signal; from pathlib import Path; from artifactgen.types import Shard\n" + (
        "from distributed.runners.deaths import Begun\n"
        "with Begun(Path.cwd())(Shard('test', 1, 2, 4)): os.kill(os.getpid(), signal.SIGKILL)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for deaths in (1, 2):
        subprocess.run([sys.executable, "-c", die], cwd=tmp_path, env=environment, check=False)
        assert len(begun.tries(B)) == deaths + 1
    with begun(A):
        assert begun.under_way([A, B]) == [B], "not the one that another worker is at"


def test_what_a_worker_died_of_is_read_from_what_it_left(tmp_path: Path) -> None:
    logs = tmp_path / "session_latest" / "logs"
    logs.mkdir(parents=True)
    assert cause([7], tmp_path, oom_kills=0).startswith("It was killed without a word")
    assert cause([7], tmp_path, oom_kills=2).startswith("Memory ran out, and the kernel ended 2")
    (logs / "worker-ab-01-7.err").write_text("*** SIGBUS received at time=1 on cpu 0 ***\n")
    assert cause([7], tmp_path, oom_kills=2).startswith("It crashed with SIGBUS")
    assert cause([17], tmp_path, oom_kills=0).startswith("It was killed without a word")


def test_the_kernels_count_is_read() -> None:
    expected = re.search(r"oom_kill (\d+)", Path("/proc/vmstat").read_text())
    assert expected is not None
    assert oom_kills() == int(expected[1])
