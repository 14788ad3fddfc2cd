"""The janitor knows the processes of a run, also those that have lost their environment."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from distributed.runners.ray_folder import private_folder
from distributed.runners.ray_janitor import MARK, _is_marked, _writes_to

TITLED = """
import ctypes, os, sys, time
if sys.argv[1]:
    file = open(sys.argv[1], "w")
# As `setproctitle` does: what it overwrites is where /proc finds the environment.
stat = open("/proc/self/stat").read().rpartition(")")[2].split()
start, end = int(stat[-3]), int(stat[-2])  # env_start, env_end of proc(5)
ctypes.memset(start, 0, end - start)
print("ready", flush=True)
time.sleep(600)
"""
RUN = """
from distributed.runners.ray_folder import private_folder
with private_folder() as folder:
    file = open(folder / "driver.log", "w")
print("goes on")
"""


@contextmanager
def titled(folder: Path, *, writes_to: str) -> Iterator[subprocess.Popen[str]]:
    """A process of a run whose title has taken the place of its environment."""
    process = subprocess.Popen(
        [sys.executable, "-c", TITLED, writes_to],
        env={MARK: str(folder)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def eventually(condition: Callable[[], bool], timeout_s: float = 20) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def test_a_process_with_a_title_is_known_by_the_files_that_it_has_open(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with titled(folder, writes_to=str(folder / "raylet.log")) as process:
        proc = Path("/proc") / str(process.pid)
        assert not _is_marked(proc, str(folder)), "its environment is gone"
        assert _writes_to(proc, str(folder))
        assert not _writes_to(proc, str(tmp_path / "other"))
        assert not _writes_to(proc, str(tmp_path / "ru")), "no folder whose name begins alike"


def test_a_process_with_a_title_ends_with_the_run() -> None:
    with ExitStack() as stack:
        with private_folder() as folder:
            process = stack.enter_context(titled(folder, writes_to=str(folder / "raylet.log")))
        assert eventually(lambda: process.poll() is not None)
        assert not folder.exists()


def test_others_with_a_title_are_left_alone(tmp_path: Path) -> None:
    with titled(tmp_path, writes_to=str(tmp_path / "own.log")) as process:
        with private_folder():
            pass
        assert process.poll() is None


def test_the_run_itself_goes_on_with_a_file_of_it_open() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", RUN],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "goes on\n"), done.stderr
