from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from artifactgen.store.atomic import read_json, replacing, sha256_file, write_bytes, write_json

WRITE_AND_DIE = """
import os, signal, sys
from pathlib import Path
from artifactgen.store.atomic import replacing
with replacing(Path(sys.argv[1]), temp_dir=Path(sys.argv[2])) as temp:
    with temp.open("wb") as file:
        file.write(b"new" * 100_000)
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
"""
KILL_AT_RANDOM = """
import multiprocessing, sys, time
from itertools import count
from pathlib import Path
from artifactgen.store.atomic import write_bytes

target, temp_dir = map(Path, sys.argv[1:])
context = multiprocessing.get_context("fork")

def replace_for_ever(started):
    for i in count():
        content = bytes([i % 256]) * 100_000
        write_bytes(target, content, temp_dir=temp_dir, durable=False)
        started.set()

for delay_ms in range(20):
    started = context.Event()
    process = context.Process(target=replace_for_ever, args=(started,))
    process.start()
    started.wait()
    time.sleep(delay_ms / 1000)
    process.kill()
    process.join()
    content = target.read_bytes()
    assert process.exitcode == -9
    assert content == content[:1] * 100_000
"""


@pytest.mark.parametrize("durable", [True, False])
def test_the_new_content_is_there_in_full_and_nothing_else(tmp_path: Path, durable: bool) -> None:
    target, temp_dir = tmp_path / "a" / "b.bin", tmp_path / "tmp"
    for content in (b"old", b"new" * 100_000):
        write_bytes(target, content, temp_dir=temp_dir, durable=durable)
        assert target.read_bytes() == content
    assert not list(temp_dir.iterdir())
    assert list(target.parent.iterdir()) == [target]


def test_a_block_that_raises_leaves_the_old_content_and_no_temporary_file(tmp_path: Path) -> None:
    target, temp_dir = tmp_path / "a.bin", tmp_path / "tmp"
    target.write_bytes(b"old")

    def fail() -> None:
        with replacing(target, temp_dir=temp_dir) as temp:
            temp.write_bytes(b"new")
            raise KeyError("in the block")

    with pytest.raises(KeyError):
        fail()
    assert target.read_bytes() == b"old"
    assert not list(temp_dir.iterdir())


def test_a_process_killed_in_the_block_leaves_the_old_content(tmp_path: Path) -> None:
    target, temp_dir = tmp_path / "a.bin", tmp_path / "tmp"
    target.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", WRITE_AND_DIE, target, temp_dir], check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_bytes() == b"old"
    (left,) = temp_dir.iterdir()  # where the next run sweeps
    assert left.stat().st_size == 300_000


def test_a_process_killed_at_random_never_leaves_half_a_file(tmp_path: Path) -> None:
    arguments = [tmp_path / "a.bin", tmp_path / "tmp"]
    done = subprocess.run(
        [sys.executable, "-c", KILL_AT_RANDOM, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("text", ["\ud800", "a\udcffb", "\0", "é🫀", '"\\u0041\\', "\n"], ids=ascii)
def test_json_holds_any_text_and_stays_json(tmp_path: Path, text: str) -> None:
    value = {text: [text, 1, 2.5, None, True, {}]}
    write_json(tmp_path / "a.json", value, temp_dir=tmp_path / "tmp")
    assert read_json(tmp_path / "a.json") == value
    assert json.loads((tmp_path / "a.json").read_bytes()) == value


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, Path("x")], ids=str)
def test_json_refuses_what_would_not_be_json(tmp_path: Path, value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        write_json(tmp_path / "a.json", [value], temp_dir=tmp_path / "tmp")
    assert not (tmp_path / "a.json").exists()


def test_the_digest_is_the_one_of_coreutils(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(range(256)) * 10_000)
    done = subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True)
    assert sha256_file(path) == done.stdout.split()[0]
