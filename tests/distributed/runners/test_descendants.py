"""What a job starts ends with it; each case has a process of its own, all of whose children end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

LIMIT_S = 30
"""For what sleeps ten minutes unless it is ended."""
DAEMON = """
import os, pathlib, signal, sys, time
from distributed.runners.descendants import ending_descendants

def daemon(note):
    # As a `ray start` without `--block` leaves its processes: init would adopt it.
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    pathlib.Path(note).write_text(str(os.getpid()))
    if sys.argv[2] == "with children" and os.fork():
        pathlib.Path(note + ".child").write_text(str(os.getpid()))
    time.sleep(600)
    os._exit(0)

note = pathlib.Path(sys.argv[1])
try:
    with ending_descendants():
        daemon(str(note))
        while not (note.exists() and note.read_text()):
            time.sleep(0.01)
        if sys.argv[2] == "error":
            raise KeyError
except KeyError:
    pass
children = pathlib.Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
print(children.read_text().split())
"""


@pytest.fixture
def note(tmp_path: Path) -> Iterator[Path]:
    """Where the daemon writes its id; it is ended here where the code under test does not."""
    path = tmp_path / "pid"
    yield path
    for file in tmp_path.glob("pid*"):
        with suppress(psutil.NoSuchProcess):
            psutil.Process(int(file.read_text())).kill()


@pytest.mark.parametrize("how", ["end", "error", "with children"])
def test_a_daemon_that_was_orphaned_is_ended_and_reaped(note: Path, how: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DAEMON, str(note), how],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr
    assert not psutil.pid_exists(int(note.read_text()))


PLAIN = """
import os, subprocess, sys
from distributed.runners.descendants import ending_descendants
with ending_descendants():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    subprocess.run(["true"], check=True)
print(os.path.exists(f"/proc/{child.pid}"))
"""


def test_a_child_that_was_not_waited_for_is_ended() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PLAIN],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


def test_where_nothing_was_started_nothing_is_waited_for() -> None:
    nothing = "from distributed.runners.descendants import ending_descendants as e\nwith e(): pass"
    done = subprocess.run([sys.executable, "-c", nothing], timeout=LIMIT_S, check=False)
    assert done.returncode == 0
