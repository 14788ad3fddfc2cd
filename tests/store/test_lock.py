from __future__ import annotations

import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from artifactgen.errors import OutputError
from artifactgen.store.lock import lock, owner, parts_at_work
from artifactgen.types import Part

HOLD = """
import sys
from pathlib import Path
from artifactgen.store.lock import lock
from artifactgen.types import Part
part = Part(*map(int, sys.argv[2:])) if sys.argv[2:] else None
with lock(Path(sys.argv[1]), part=part):
    print("held", flush=True)
    sys.stdin.readline()
"""
START_TOGETHER = """
import json, multiprocessing, os, sys
from pathlib import Path
from artifactgen.errors import OutputError
from artifactgen.store.lock import lock

context = multiprocessing.get_context("fork")
start, answers, end = context.Barrier(20), context.SimpleQueue(), context.Event()

def run():
    start.wait()
    try:
        with lock(Path(sys.argv[1])):
            answers.put((os.getpid(), "held"))
            end.wait()
    except OutputError as error:
        answers.put((os.getpid(), str(error)))

processes = [context.Process(target=run) for _ in range(20)]
for process in processes:
    process.start()
print(json.dumps([answers.get() for _ in processes]))
end.set()
"""


def take(path: Path, *part: int, **environment: str) -> subprocess.Popen[str]:
    """A process that holds the lock, or a part of it, until a line comes on its input."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, path, *map(str, part)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
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
    holder.communicate("\n")
    assert holder.returncode == 0
    assert owner(path) is None
    with lock(path):
        assert f"pid {os.getpid()}" in (owner(path) or "")


def test_a_lock_left_by_a_killed_process_is_free(path: Path) -> None:
    holder = take(path)
    holder.kill()
    holder.communicate()
    assert owner(path) is None
    with lock(path):
        assert f"pid {os.getpid()}" in (owner(path) or "")


def test_an_error_in_the_block_frees_the_lock(path: Path) -> None:
    with pytest.raises(KeyError), lock(path):
        raise KeyError
    assert owner(path) is None


def test_a_run_that_starts_while_another_asks_or_ends_is_not_refused(path: Path) -> None:
    path.parent.mkdir(parents=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        ending = threading.Timer(0.06, fcntl.flock, [file, fcntl.LOCK_UN])
        ending.start()
        with lock(path):
            assert f"pid {os.getpid()}" in (owner(path) or "")
        ending.join()


def test_asking_for_the_owner_makes_and_takes_nothing(path: Path) -> None:
    assert owner(path) is None
    assert not path.exists()


def test_of_twenty_that_start_at_once_one_works_and_all_others_name_it(path: Path) -> None:
    command = [sys.executable, "-c", START_TOGETHER, path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answers = json.loads(done.stdout)
    assert len(answers) == 20
    (winner,) = (pid for pid, answer in answers if answer == "held")
    for pid, answer in answers:
        assert pid == winner or f"pid {winner}," in answer, answer
    assert owner(path) is None


def test_parts_share_the_lock_and_all_of_them_are_named(path: Path) -> None:
    third = take(path, 2, 8, SLURM_ARRAY_JOB_ID="4711", SLURM_ARRAY_TASK_ID="2")
    eighth = take(path, 7, 8)
    with pytest.raises(OutputError) as refusal, lock(path):
        pass
    for told in (str(refusal.value), owner(path) or ""):
        assert f"pid {third.pid}, " in told
        assert "slurm_job 4711_2, part 3 of 8; host " in told
        assert f"pid {eighth.pid}, " in told
    assert len(parts_at_work(path)) == 2
    assert len(parts_at_work(path, but=Part(2, 8))) == 1
    third.kill()
    third.communicate()
    assert f"pid {third.pid}" not in (owner(path) or "")
    with lock(path, part=Part(2, 8)):
        assert len(parts_at_work(path)) == 2
    eighth.communicate("\n")
    assert owner(path) is None
    with lock(path):
        assert f"pid {os.getpid()}, " in (owner(path) or "")


def test_a_part_is_not_done_twice_at_once(path: Path) -> None:
    first = take(path, 0, 2)
    with (
        pytest.raises(OutputError, match=f"pid {first.pid}, .*part 1 of 2"),
        lock(path, part=Part(0, 2)),
    ):
        pass
    with lock(path, part=Part(1, 2)):
        pass
    first.communicate("\n")


def test_parts_of_another_number_are_refused(path: Path) -> None:
    first = take(path, 0, 2)
    with (
        pytest.raises(OutputError, match=f"this is part 2 of 4, and there is .*pid {first.pid}"),
        lock(path, part=Part(1, 4)),
    ):
        pass
    first.communicate("\n")
    with lock(path, part=Part(1, 4)):
        pass


def test_a_run_keeps_parts_out(path: Path) -> None:
    run = take(path)
    with (
        pytest.raises(OutputError, match=f"Another run is writing to .*pid {run.pid}"),
        lock(path, part=Part(1, 4)),
    ):
        pass
    assert parts_at_work(path) == [], "who was refused is not at work"
    run.communicate("\n")
