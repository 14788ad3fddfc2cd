"""Ray does what the loop in one process does, to the bit, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from helpers.workspace import (
    CKPT,
    EXPERIMENT,
    Started,
    Workspace,
    artifacts,
    assert_exact,
    descendants,
    entries,
    snapshot,
)
from ray.exceptions import RayTaskError

from artifactgen.device import find_devices
from distributed.runners import ray_session
from distributed.runners.ray_data import _true_message
from distributed.runners.ray_environment import ray_environment, ray_variables

pytestmark = pytest.mark.ray

RAY = ("cluster=ray", "cluster.threads_per_worker=1")


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Every process that a run starts ends with it; they are known by their environment."""
    monkeypatch.setenv("STARTED_BY_TEST", str(tmp_path))
    yield
    deadline = time.monotonic() + 10  # what was killed from outside has its janitor
    while left := [process for process in psutil.process_iter() if starts_from(process, tmp_path)]:
        assert time.monotonic() < deadline, [process.cmdline() for process in left]
        time.sleep(0.2)


def starts_from(process: psutil.Process, tmp_path: Path) -> bool:
    with suppress(psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
        of_test = process.environ().get("STARTED_BY_TEST") == str(tmp_path)
        return of_test and process.pid != os.getpid()
    return False


def folders(driver: int) -> list[Path]:
    """Of the Ray of a driver."""
    return list(Path("/tmp").glob(f"artifactgen-ray-{driver}-*"))


def actors(started: Started) -> list[psutil.Process]:
    """Processes of our workers, once they have the model."""
    found = []
    for process in descendants(started.process.pid):
        with suppress(psutil.NoSuchProcess):
            if "WorkerActor" in " ".join(process.cmdline()):
                found.append(process)
    return found


@pytest.fixture
def home_with_a_token(tmp_path: Path) -> Path:
    """As Ray left it, of some other day."""
    token = tmp_path / "home" / ".ray" / "auth_token"
    token.parent.mkdir(parents=True)
    token.write_text("0" * 64)
    return tmp_path / "home"


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_bytes(
    workspace: Workspace,
    finished: Workspace,
    workers: int,
    monkeypatch: pytest.MonkeyPatch,
    home_with_a_token: Path,
) -> None:
    home = home_with_a_token if workers == 2 else Path("/dev/null/home")  # cannot be written
    before = snapshot(home_with_a_token)
    for name, value in {
        "HOME": str(home),
        "TMPDIR": f"{workspace.root}/{'d' * 200}",
        "RAY_ADDRESS": "203.0.113.7:6379",  # somebody else's; there is none there
        "RAY_AUTH_MODE": "disabled",
    }.items():
        monkeypatch.setenv(name, value)
    outcome = workspace.run(EXPERIMENT, CKPT, *RAY, f"cluster.workers={workers}")
    assert outcome.exit_code == 0, outcome.text
    assert f"Workers: {workers} × {find_devices('cpu').name}, 1 thread each, Ray;" in outcome.text
    assert f"Ray: starting {workers} worker" in outcome.text
    assert "36 of 36 records (100 %)" in outcome.text
    assert snapshot(home_with_a_token) == before
    assert folders(os.getpid()) == []
    assert_exact(workspace.output, finished.output)


def test_a_worker_that_is_killed_is_replaced(workspace: Workspace, finished: Workspace) -> None:
    started = workspace.start(EXPERIMENT, CKPT, *RAY, "cluster.workers=2")
    started.wait_for(lambda: entries(workspace.output), what="a first shard")
    victims = actors(started)
    assert victims
    victims[0].kill()
    outcome = started.finish()
    assert outcome.exit_code == 0, outcome.text
    assert_exact(workspace.output, finished.output)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_and_can_be_resumed(
    workspace: Workspace, finished: Workspace, number: signal.Signals
) -> None:
    started = workspace.start(EXPERIMENT, CKPT, *RAY, "cluster.workers=1")
    started.wait_for(lambda: entries(workspace.output), what="a first shard")
    started.signal_group(number)
    outcome = started.finish(timeout_s=150)
    assert outcome.exit_code == 130, outcome.text
    assert "Interrupted. What is done stays done. Resume with:" in outcome.text
    assert "Traceback" not in outcome.text, outcome.text
    assert workspace.run(EXPERIMENT, CKPT).exit_code == 0
    assert_exact(workspace.output, finished.output)


def test_a_driver_that_is_killed_takes_everything_of_ray_along(
    workspace: Workspace, finished: Workspace
) -> None:
    started = workspace.start(EXPERIMENT, CKPT, *RAY, "cluster.workers=1")
    started.wait_for(lambda: entries(workspace.output), what="a first shard")
    assert actors(started)
    assert folders(started.process.pid)
    started.process.kill()  # the driver alone: nobody tells its children
    started.finish()
    deadline = time.monotonic() + 30

    def left() -> list[object]:
        """The janitor goes last."""
        processes = [p for p in psutil.process_iter() if starts_from(p, workspace.root)]
        return [*folders(started.process.pid), *processes]

    while left() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left() == []
    assert workspace.run(EXPERIMENT, CKPT).exit_code == 0
    assert_exact(workspace.output, finished.output)


def test_an_error_in_a_worker_is_told_as_it_is(workspace: Workspace) -> None:
    """The output directory becomes a file while the run is on."""
    started = workspace.start(EXPERIMENT, CKPT, *RAY, "cluster.workers=1")
    started.wait_for(lambda: entries(workspace.output), what="a first shard")
    begun = time.monotonic()
    aside = workspace.root / "aside"
    workspace.output.rename(aside)
    workspace.output.write_text("in the way")
    outcome = started.finish()
    assert time.monotonic() - begun < 60
    assert outcome.exit_code == 1, outcome.text
    assert "Not a directory" in outcome.text, outcome.text
    assert "Traceback" not in outcome.text
    assert "Resume with:\n  generate_artifacts" in outcome.text


def test_what_ray_wraps_around_an_error_is_taken_off() -> None:
    text = (
        "ray::MapWorker(Map(WorkerActor)).submit() (pid=7)\n"
        '  File "worker.py", line 6, in __call__\n'
        "    raise ValueError\n"
        "ValueError: boom\nsecond line\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
        "ray.exceptions.UserCodeException: UDF failed to process a data block.\nTo change …"
    )
    error = RayTaskError("submit", text, ValueError("boom"))
    assert _true_message(error) == "ValueError: boom\nsecond line"


def test_what_is_merged_needs_no_worker(workspace: Workspace, finished: Workspace) -> None:
    shutil.copytree(finished.output, workspace.output)
    (workspace.output / "_SUCCESS.json").unlink()
    outcome = workspace.run(EXPERIMENT, CKPT, *RAY)
    assert outcome.exit_code == 0, outcome.text
    assert artifacts(workspace.output) == artifacts(finished.output)
    assert (workspace.output / "_SUCCESS.json").exists()


def test_a_ray_that_does_not_start_in_time_is_told(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_session, "_START_S", 0.01)
    outcome = workspace.run(EXPERIMENT, CKPT, *RAY)
    assert outcome.exit_code == 1, outcome.text
    assert "Ray did not start within 0 s.\nRun the same command again" in outcome.text
    assert folders(os.getpid()) == []


def test_workers_with_another_kind_of_device_are_refused(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = find_devices("cpu").name
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")  # too late for this process
    outcome = workspace.run(EXPERIMENT, CKPT, *RAY)
    assert outcome.exit_code == 1, outcome.text
    assert f"and the run was planned for {planned}: they round differently." in outcome.text


def test_the_users_own_variables_of_ray_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of the user")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_ADDRESS", "203.0.113.7:6379")
    before = dict(os.environ)
    with ray_environment(ray_variables(Path("/tmp/x"), token="a" * 64, quiet=True)):
        assert os.environ["RAY_AUTH_TOKEN"] == "a" * 64
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert "RAY_ADDRESS" not in os.environ
        monkeypatch.setenv("RAY_SET_BY_RAY", "1")
    assert dict(os.environ) == before
