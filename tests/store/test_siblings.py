"""The parts of a run among themselves, as processes that do nothing but commit a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from artifactgen.store.siblings import siblings

ROUNDS, PARTS = 60, 4
RUN_TOGETHER = """
import multiprocessing, random, sys, time
from pathlib import Path
from artifactgen.store.lock import lock, owner
from artifactgen.store.siblings import siblings
from artifactgen.types import Part

root, rounds, parts = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
context = multiprocessing.get_context("fork")
start = context.Barrier(parts)

def run(index):
    choose = random.Random(index)
    for number in range(rounds):
        path = root / str(number) / ".artifactgen" / "lock"
        start.wait()
        if choose.random() < 0.3:
            time.sleep(choose.random() * 0.02)
        with lock(path, part=Part(index, parts)), siblings(path) as others:
            work(path, index, others, choose)

def work(path, index, others, choose):
    while not others.try_join():
        time.sleep(0.001)
    time.sleep(choose.choice([0, 0, 0.001]))
    (path.parent / f"{index}.done").touch()
    if not others.try_alone():
        return
    if len(list(path.parent.glob("*.done"))) < parts or (path.parent / "merged").exists():
        return
    with (path.parent / "merged").open("a") as file:
        file.write("x")

def ask():
    while True:
        for number in range(rounds):
            owner(root / str(number) / ".artifactgen" / "lock")

processes = [context.Process(target=run, args=(index,)) for index in range(parts)]
status = context.Process(target=ask)
for process in (status, *processes):
    process.start()
for process in processes:
    process.join()
status.terminate()
status.join()
sys.exit(max(process.exitcode for process in processes))
"""


def test_of_parts_that_end_together_one_merges_whoever_asks_meanwhile(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RUN_TOGETHER, tmp_path, str(ROUNDS), str(PARTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    merged = [tmp_path / str(number) / ".artifactgen" / "merged" for number in range(ROUNDS)]
    assert [path.read_text() if path.exists() else "" for path in merged] == ["x"] * ROUNDS


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def test_who_is_alone_keeps_the_others_out_until_it_leaves(lock: Path) -> None:
    with siblings(lock) as first, siblings(lock) as second:
        assert first.try_alone()
        assert not second.try_alone()
        assert not second.try_join()
        first.leave()
        assert second.try_join()
        assert first.try_join()
        assert not first.try_alone()
        assert second.try_alone(), "what was held before an attempt is given back"
    with siblings(lock) as third:
        assert third.try_alone()
