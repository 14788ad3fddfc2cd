from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from artifactgen.errors import OutputError
from artifactgen.store.lock import lock, owner

HOLD = """
import sys
from pathlib import Path
from artifactgen.errors import OutputError
from artifactgen.store.lock import lock
sys.stdin.readline()
try:
    with lock(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.readline()
except OutputError as error:
    print(str(error).replace(chr(10), " "), flush=True)
"""


def start(path: Path, **environment: str) -> subprocess.Popen[str]:
    """A process that takes the lock at one line on its input, and holds it until the next."""
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def answer(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def take(path: Path, **environment: str) -> subprocess.Popen[str]:
    process = start(path, **environment)
    go_on(process)
    assert answer(process) == "held"
    return process


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "out" / ".artifactgen" / "lock"


def test_a_second_run_is_refused_and_told_by_whom(path: Path) -> None:
    holder = take(path, SLURM_JOB_ID="4711")
    with pytest.raises(OutputError) as refusal, lock(path):
        pass
    for fact in (socket.gethostname(), f"pid {holder.pid}", "4711", str(path.parents[1])):
        assert fact in str(refusal.value)
    assert f"pid {holder.pid}" in (owner(path) or "")
    go_on(holder)
    assert holder.wait(10) == 0
    assert owner(path) is None
    with lock(path):
        assert f"pid {os.getpid()}" in (owner(path) or "")


def test_a_lock_left_by_a_killed_process_is_free(path: Path) -> None:
    holder = take(path)
    holder.kill()
    holder.wait()
    assert owner(path) is None
    with lock(path):
        assert f"pid {os.getpid()}" in (owner(path) or "")


def test_an_error_in_the_block_frees_the_lock(path: Path) -> None:
    with pytest.raises(KeyError), lock(path):
        raise KeyError
    assert owner(path) is None


def test_asking_for_the_owner_makes_and_takes_nothing(path: Path) -> None:
    assert owner(path) is None
    assert not path.exists()


def test_of_twenty_that_start_at_once_one_works_and_all_others_name_it(path: Path) -> None:
    processes = [start(path) for _ in range(20)]
    for process in processes:
        go_on(process)
    answers = {process: answer(process) for process in processes}
    (winner,) = (process for process, said in answers.items() if said == "held")
    for process, said in answers.items():
        assert process is winner or f"pid {winner.pid}" in said, said
    go_on(winner)
    assert [process.wait(10) for process in processes] == [0] * 20
