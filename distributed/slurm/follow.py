"""Waiting for jobs: what they print, what becomes of them, and how they ended."""

from __future__ import annotations

import logging
import os
import shlex
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from artifactgen.store.layout import Layout
from distributed.process import INTERRUPTED, RESUME, how_to_resume
from distributed.slurm.outcome import explain, never, read_outcome
from distributed.slurm.queue import UNKNOWN, JobState, ask
from distributed.slurm.shard_count import ShardCount
from distributed.slurm.submissions import Submission
from distributed.slurm.tail import Tail

FAILED = 1

_LOOK_S = 1.0
_ASK_S, _MAX_ASK_S = 5.0, 30.0
_GRACE_S = 20.0
"""For the word of a job to come over a network, once SLURM says that the job is over."""
_OUTCOME_S = 60.0
"""After which a job that has said how it ended is over, whatever SLURM says."""
_TO_COME = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SUSPENDED")
_LAST_LINES = 20
_MAX_NAMED = 4
_MAX_SHOWN = 4
"""Logs of more jobs than these are not shown, but their ends where they failed."""

log = logging.getLogger(__name__)


def follow(jobs: Sequence[Submission], *, layouts: Sequence[Layout]) -> int:
    """Show what jobs print until all are over; the first exit code that is not 0.

    Ctrl-C ends the waiting, not the jobs.

    Args:
        jobs: as they were submitted.
        layouts: the output directories that they work for.
    """
    prefixed, shown = len(jobs) > 1, len(jobs) <= _MAX_SHOWN
    followed = [_Followed(job, prefixed=prefixed, shown=shown) for job in jobs]
    try:
        _wait(followed, ShardCount([] if shown else layouts))
    except KeyboardInterrupt:
        _say_that_they_go_on([job.job_id for job in followed if job.code is None], layouts)
        return INTERRUPTED
    lost = [job.submission.command for job in followed if job.is_lost]
    if lost:
        log.error(how_to_resume(lost[0]))
    return next((job.code for job in followed if job.code), 0)


def _wait(followed: Sequence[_Followed], count: ShardCount) -> None:
    pace = _Pace()
    while waiting := [job for job in followed if job.code is None]:
        _refresh(waiting)
        news = [job.look() for job in waiting]
        if pace.is_due(any(news)):
            states = ask([job.job_id for job in waiting])
            pace.asked(changed=_hear(waiting, states))
        for job in waiting:
            job.conclude()
        count.tell()
        if any(job.code is None for job in waiting):
            time.sleep(_LOOK_S)


def _refresh(jobs: Iterable[_Followed]) -> None:
    """Open the folders of the logs: NFS looks for new files then, else only once a minute."""
    for folder in {Path(job.submission.log).parent for job in jobs}:
        with suppress(OSError):
            os.scandir(folder).close()


class _Pace:
    """When SLURM is to be asked: often while something happens, seldom in a long wait."""

    def __init__(self) -> None:
        self._asked = float("-inf")
        self._changed = time.monotonic()

    def is_due(self, news: bool) -> bool:
        now = time.monotonic()
        quiet = 0 if news else now - self._changed
        return now - self._asked >= min(max(_ASK_S, quiet / 10), _MAX_ASK_S)

    def asked(self, *, changed: bool) -> None:
        self._asked = time.monotonic()
        if changed:
            self._changed = self._asked


class _Followed:
    """A job on its way: what of its log was shown, what SLURM said last."""

    def __init__(self, submission: Submission, *, prefixed: bool, shown: bool) -> None:
        self.submission = submission
        self.job_id = submission.job_id
        self.code: int | None = None
        """Its exit code, once it is over."""
        self.is_lost = False
        """Whether it ended, and nothing that was shown of it says how to go on."""
        self.state: JobState | None = None
        self._prefix = f"[{submission.job_id}] " if prefixed else ""
        self._is_shown = shown
        self._tail = Tail(Path(submission.log))
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._restarts = 0
        self._over_since: float | None = None
        self._told: int | None = None
        self._told_since: float | None = None

    def look(self) -> bool:
        """Show what is new in the log; whether the job has said how it ended."""
        self._show(self._tail.lines())
        self._told = read_outcome(self.submission)
        if self._told is None:
            self._told_since = None  # or it was started again, and has taken it back
        elif self._told_since is None:
            self._told_since = time.monotonic()
        return self._told_since is not None

    def hear(self, state: JobState) -> Iterator[str]:
        """Take what SLURM says; what is new in it."""
        before = self.state
        if before and before.is_over and state.is_over and state.state == UNKNOWN:
            return  # forgotten meanwhile: what was known says more
        self.state = state
        if not state.is_over:
            self._over_since = None
        elif self._over_since is None:
            self._over_since = time.monotonic()
        if before and state.restarts > self._restarts:
            yield "was requeued"
        self._restarts = max(self._restarts, state.restarts)
        if before is None or _phrase(state) != _phrase(before):
            yield _phrase(state)

    def conclude(self) -> None:
        """Decide whether it is over."""
        now = time.monotonic()
        over = self._over_since is not None
        waits = self.state is not None and self.state.state in _TO_COME  # it was requeued
        late = self._told_since is not None and now - self._told_since >= _OUTCOME_S and not waits
        if self._told is not None and (over or late):
            self._show(self._tail.rest())
            self.code = self._told
            if self.code and not self._is_shown:
                log.error("Job %s ended with exit code %d. %s", self.job_id, self.code, self._end())
        elif self._over_since is not None and now - self._over_since >= self._grace_s():
            self._show(self._tail.rest())
            self._give_up()

    def _grace_s(self) -> float:
        """How long its own word may take; one that was stopped leaves none."""
        return _LOOK_S if self._was_stopped() else _GRACE_S

    def _was_stopped(self) -> bool:
        return self.state is not None and self.state.state in ("CANCELLED", "PREEMPTED")

    def _give_up(self) -> None:
        assert self.state
        was_stopped = self._was_stopped()
        self.code = INTERRUPTED if was_stopped else FAILED
        self.is_lost = not (self._is_shown and any(RESUME in line for line in self._last))
        if was_stopped:
            log.error("Job %s: %s", self.job_id, explain(self.state))
            return
        log.error(
            "Job %s ended without saying how; for SLURM it is %s.\n%s\n%s",
            self.job_id,
            _ending(self.state),
            explain(self.state),
            self._end(),
        )

    def _end(self) -> str:
        """The end of its log."""
        lines = "".join(f"\n  {line}" for line in self._last)
        if not lines:
            return f"It has printed nothing ({self.submission.log})."
        return f"The end of {self.submission.log}:{lines}"

    def _show(self, lines: Iterable[str]) -> None:
        for line in lines:
            if not line.startswith("submitit "):
                self._last.append(line)
                if self._is_shown:
                    sys.stderr.write(f"{self._prefix}{line}\n")
        sys.stderr.flush()


def _hear(waiting: Sequence[_Followed], states: Mapping[str, JobState]) -> bool:
    """Tell all jobs what SLURM says, and print what is new, in a line for those alike."""
    news: dict[str, list[str]] = {}
    for job in waiting:
        for text in job.hear(states[job.job_id]):
            news.setdefault(text, []).append(job.job_id)
    for text, ids in news.items():
        log.info(_sentence(ids, text))
    return bool(news)


def _sentence(ids: Sequence[str], text: str) -> str:
    """`Job 12 is pending`, or `Jobs 12, 13 and 7 more are pending`."""
    if not ids[1:]:
        return f"Job {ids[0]} {text}"
    more = f" and {len(ids) - _MAX_NAMED} more" if ids[_MAX_NAMED:] else ""
    verb, _, rest = text.partition(" ")
    plural = {"is": "are", "was": "were", "runs": "run"}.get(verb, verb)
    return f"Jobs {', '.join(ids[:_MAX_NAMED])}{more} {plural} {rest}"


def _phrase(state: JobState) -> str:
    if not state.answered:
        return f"is waited for, though SLURM does not say how it is: {state.reason}"
    if state.is_over:
        return f"ended: {_ending(state)}"
    if state.state == "PENDING":
        told = f"{state.reason}{never(state)}"
        return f"is pending ({told})" if told else "is pending"
    if state.state == "RUNNING":
        return f"runs on {state.nodes}"
    return f"is {state.state}"


def _ending(state: JobState) -> str:
    code = state.exit_code not in ("", "0:0")
    return f"{state.state}, exit code {state.exit_code}" if code else state.state


def _say_that_they_go_on(job_ids: Sequence[str], layouts: Sequence[Layout]) -> None:
    folders = dict.fromkeys(str(layout.root.absolute()) for layout in layouts)
    whole = dict.fromkeys(job_id.partition("_")[0] for job_id in job_ids)
    looks = "".join(f"\n  python -m distributed.status {shlex.quote(f)}" for f in folders)
    one = len(whole) == 1
    log.warning(
        "%s on without this command. How far %s:%s\nTo cancel:\n  scancel %s",
        f"Job {next(iter(whole))} goes" if one else f"{len(whole)} jobs go",
        "it is" if one else "they are",
        looks,
        " ".join(whole),
    )
