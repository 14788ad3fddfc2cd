"""Ray's folder goes away with the run, with every process that has it in its environment."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from artifactgen.errors import RunError
from distributed.runners import ray_folder
from distributed.runners.ray_folder import private_folder
from distributed.runners.ray_janitor import MARK

HOLD = """
import os, subprocess, sys, time
from distributed.runners import ray_folder
from distributed.runners.ray_folder import private_folder
ray_folder._PLACES = (sys.argv[2],)
with private_folder() as folder:
    environment = {**os.environ, sys.argv[1]: str(folder)}
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    child = subprocess.Popen(command, env=environment, start_new_session=True)
    print(folder, child.pid, flush=True)
    time.sleep(600)
"""


def wait_for(condition: Callable[[], bool], *, timeout_s: float = 20) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where folders are made in place of /tmp: runs of other tests remove what is left there."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(ray_folder, "_PLACES", (folder,))
        yield folder


def hold(place: str) -> tuple[subprocess.Popen[str], Path, psutil.Process]:
    """A process that has a folder and a child in it."""
    command = [sys.executable, "-c", HOLD, MARK, place]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    folder, child = holder.stdout.readline().split()
    return holder, Path(folder), psutil.Process(int(child))


def end(holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.communicate()


def test_the_folder_is_private_short_and_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", "/nowhere/" + "d" * 200)
    with private_folder() as folder:
        assert len(os.fsencode(folder)) <= 43, "a socket's path has 107 bytes"
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "session").mkdir()
    assert not folder.exists()


def test_an_error_takes_it_along() -> None:
    with pytest.raises(KeyError), private_folder() as folder:
        raise KeyError
    assert not folder.exists()


def test_a_run_that_is_killed_leaves_neither_folder_nor_process(place: str) -> None:
    holder, folder, child = hold(place)
    end(holder)
    assert wait_for(lambda: not folder.exists())
    assert wait_for(lambda: not child.is_running())


def test_what_is_left_where_the_janitor_is_killed_too_goes_with_the_next_run(place: str) -> None:
    holder, folder, child = hold(place)
    [janitor] = [p for p in psutil.Process(holder.pid).children() if str(folder) in p.cmdline()]
    janitor.kill()
    child.kill()
    end(holder)
    psutil.wait_procs([janitor, child], timeout=20)  # a signal is sent, and takes a moment
    assert folder.exists()
    with private_folder():
        assert not folder.exists()


def test_the_folder_of_a_living_run_is_left_alone(place: str) -> None:
    holder, folder, _ = hold(place)
    try:
        with private_folder() as own:
            assert folder.exists()
            assert own != folder
        assert folder.exists()
    finally:
        end(holder)


def test_another_place_is_taken_where_the_first_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_folder, "_PLACES", ("/dev/null", tempfile.gettempdir()))
    with private_folder() as folder:
        assert folder.parent == Path(tempfile.gettempdir())
    monkeypatch.setattr(ray_folder, "_PLACES", ("/dev/null", "/proc"))
    with (
        pytest.raises(RunError, match=r"/dev/null, /proc\.\n.*cluster=inline"),
        private_folder(),
    ):
        pass
