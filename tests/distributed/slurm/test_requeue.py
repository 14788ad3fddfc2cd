"""A job that is warned stops and is requeued, unless that would not help."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from artifactgen.errors import LostNodeError, RequeuedError, RunError
from distributed.slurm.allocation import Allocation
from distributed.slurm.queue import left_s
from distributed.slurm.requeue import requeueing

JOB = "12_7"
ALLOCATION = Allocation.of(
    {
        **{"SLURM_JOB_ID": "19", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "7"},
        **{"SLURM_PROCID": "0", "SLURM_NTASKS": "1", "SLURM_NNODES": "1"},
    }
)
PLENTY = "1-02:03:04"


@dataclass(frozen=True, slots=True)
class StandIn:
    """SLURM's commands, as scripts: how much time is left is not to be waited for here."""

    folder: Path

    def says(self, left: str) -> None:
        """What `squeue` prints of the time that is left."""
        (self.folder / "left").write_text(left)

    def refuses(self, words: str) -> None:
        """Let `scontrol requeue` fail."""
        (self.folder / "refusal").write_text(words)

    def asked(self, command: str) -> list[str]:
        """Arguments of the calls of a command."""
        log = self.folder / f"{command}.log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture(autouse=True)
def sigterm_as_before() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def slurm_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    folder = tmp_path / "bin"
    folder.mkdir()
    answers = {
        "squeue": f'exec /bin/cat "{folder}/left"',
        "scontrol": f'[ -e "{folder}/refusal" ] || exit 0\n/bin/cat "{folder}/refusal" >&2\nexit 1',
    }
    for name, answer in answers.items():
        (folder / name).write_text(f'#!/bin/sh\necho "$@" >> "{folder}/{name}.log"\n{answer}\n')
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    found = StandIn(folder)
    found.says("1:59\n")
    return found


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    """A warning that nobody handles would end the tests."""
    before = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    yield
    found = signal.signal(signal.SIGUSR2, before)
    assert found == signal.SIG_IGN, "what a signal does is put back"


def warned(folder: Path, *, committed: int, limit: int = 3) -> None:
    """A start of the job that is warned after so many shards."""
    with requeueing(ALLOCATION, folder, limit=limit) as life:
        life.is_at_shards = True
        life.committed += committed
        signal.raise_signal(signal.SIGUSR2)


def loses_a_node(folder: Path, *, committed: int) -> None:
    """A start of the job in which a node is lost after so many shards."""
    with requeueing(ALLOCATION, folder, limit=3) as life:
        life.committed = committed
        raise LostNodeError("n2 is silent")


def test_a_job_that_gets_on_is_requeued_before_its_limit(
    tmp_path: Path, slurm_says: StandIn
) -> None:
    told = rf"Job {JOB} is requeued \(time limit, 1 of at most 3\), and will go on"
    with pytest.raises(RequeuedError, match=told):
        warned(tmp_path / "logs", committed=1)
    assert slurm_says.asked("scontrol") == [f"requeue {JOB}"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN, "SLURM ends the job at once"
    (asked,) = slurm_says.asked("squeue")
    assert asked.endswith(f"--jobs={JOB} --format=%L")


def test_time_limits_are_counted_and_end(tmp_path: Path, slurm_says: StandIn) -> None:
    for count in (1, 2):
        with pytest.raises(RequeuedError, match=f"{count} of at most 2"):
            warned(tmp_path, committed=1, limit=2)
    with pytest.raises(RunError, match=r"has met it 3 times, more than max_num_timeout=2 allows"):
        warned(tmp_path, committed=1, limit=2)
    assert len(slurm_says.asked("scontrol")) == 2


def test_a_job_that_does_not_get_on_is_not_started_again(
    tmp_path: Path, slurm_says: StandIn
) -> None:
    with pytest.raises(RunError, match=r"not one shard was finished .*\n?.*timeout_min"):
        warned(tmp_path, committed=0)
    assert slurm_says.asked("scontrol") == []


def test_a_job_that_only_reads_or_merges_is_told_so(tmp_path: Path, slurm_says: StandIn) -> None:
    with (
        pytest.raises(RunError, match="spent all of it on reading, checking or merging"),
        requeueing(ALLOCATION, tmp_path, limit=3),
    ):
        signal.raise_signal(signal.SIGUSR2)


@pytest.mark.parametrize("committed", [0, 1])
def test_a_lost_node_requeues_a_job_that_got_on(
    tmp_path: Path, slurm_says: StandIn, committed: int
) -> None:
    expected: type[BaseException] = RequeuedError if committed else LostNodeError
    with pytest.raises(expected, match="a node was lost" if committed else "is silent"):
        loses_a_node(tmp_path, committed=committed)
    assert len(slurm_says.asked("scontrol")) == committed


def test_a_job_that_is_preempted_is_requeued_however_little_it_did(
    tmp_path: Path, slurm_says: StandIn
) -> None:
    slurm_says.says(PLENTY)
    for _ in range(3):
        with pytest.raises(RequeuedError, match=r"requeued \(preempted\)"):
            warned(tmp_path, committed=0, limit=0)
    slurm_says.says("0:42")
    with pytest.raises(RequeuedError, match=r"time limit, 1 of at most 1"):
        warned(tmp_path, committed=1, limit=1)


def test_where_slurm_does_not_tell_the_time_the_limit_is_meant(
    tmp_path: Path, slurm_says: StandIn
) -> None:
    slurm_says.says("INVALID")
    with pytest.raises(RunError, match="not one shard"):
        warned(tmp_path, committed=0)


def test_what_slurm_says_to_a_refused_requeue_is_told(tmp_path: Path, slurm_says: StandIn) -> None:
    slurm_says.refuses("Requested operation is presently disabled\n")
    with pytest.raises(RunError, match=rf"Job {JOB} cannot be requeued: .* presently disabled$"):
        warned(tmp_path, committed=1)


def test_a_container_without_slurms_commands_is_told(tmp_path: Path, slurm_says: StandIn) -> None:
    (slurm_says.folder / "scontrol").unlink()
    with pytest.raises(RunError, match=rf"Job {JOB} cannot be requeued: .*No such file .*scontrol"):
        warned(tmp_path, committed=1)


def test_a_job_without_a_folder_to_count_in_is_requeued(slurm_says: StandIn) -> None:
    with pytest.raises(RequeuedError, match="1 of at most 3"):
        warned(Path("/dev/null/logs"), committed=1)


def test_an_interruption_by_hand_is_none_by_slurm(tmp_path: Path, slurm_says: StandIn) -> None:
    with pytest.raises(KeyboardInterrupt), requeueing(ALLOCATION, tmp_path, limit=3) as life:  # noqa: PT012
        life.committed += 1
        signal.raise_signal(signal.SIGINT)
    assert not life.is_warned
    assert slurm_says.asked("scontrol") == []


def test_an_error_after_the_warning_stays_that_error(tmp_path: Path, slurm_says: StandIn) -> None:
    with pytest.raises(RunError, match="disk"), requeueing(ALLOCATION, tmp_path, limit=3):  # noqa: PT012
        try:
            signal.raise_signal(signal.SIGUSR2)
        except KeyboardInterrupt:
            raise RunError("The disk is full.") from None
    assert slurm_says.asked("scontrol") == []


def test_a_second_warning_disturbs_no_more(tmp_path: Path, slurm_says: StandIn) -> None:
    ended_in_order = False
    with pytest.raises(RequeuedError), requeueing(ALLOCATION, tmp_path, limit=3) as life:  # noqa: PT012
        life.committed += 1
        try:
            signal.raise_signal(signal.SIGUSR2)
        finally:
            signal.raise_signal(signal.SIGUSR2)
            ended_in_order = True
    assert ended_in_order
    assert len(slurm_says.asked("scontrol")) == 1


def test_what_ends_in_time_is_not_requeued_and_leaves_no_count(
    tmp_path: Path, slurm_says: StandIn
) -> None:
    with pytest.raises(RequeuedError):
        warned(tmp_path / "logs", committed=1)
    assert list((tmp_path / "logs").iterdir())
    with requeueing(ALLOCATION, tmp_path / "logs", limit=3) as life:
        life.committed += 1
    assert len(slurm_says.asked("scontrol")) == 1
    assert list((tmp_path / "logs").iterdir()) == []


def test_a_folder_that_is_none_spoils_no_run_that_is_complete(slurm_says: StandIn) -> None:
    with requeueing(ALLOCATION, Path("/dev/null/logs"), limit=3) as life:
        life.committed += 1
    assert life.committed == 1


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("0:00\n", 0),
        ("1:59", 119),
        ("59:59", 3599),
        ("2:03:04", 7384),
        (PLENTY, 93784),
        ("7-00:00:00", 604_800),
        ("UNLIMITED", sys.maxsize),
        ("NOT_SET", None),
        ("INVALID", None),
        ("", None),
    ],
)
def test_the_time_that_is_left(slurm_says: StandIn, said: str, seconds: int | None) -> None:
    slurm_says.says(said)
    assert left_s(JOB) == seconds


def test_no_answer_is_no_time(slurm_says: StandIn) -> None:
    (slurm_says.folder / "left").unlink()
    assert left_s(JOB) is None, "squeue has failed"
    (slurm_says.folder / "squeue").unlink()
    assert left_s(JOB) is None, "there is none"
