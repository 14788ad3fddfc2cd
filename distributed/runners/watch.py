"""Which ranks of a job are silent, gone, or tell of an error."""

from __future__ import annotations

import time
from collections.abc import Mapping

from distributed.runners.rendezvous import BEAT_S, POLL_S, RankState, Rendezvous

_SILENT_S = 60.0
_GONE_S = 1.5 * BEAT_S
"""A rank that is told to leave does so, or has a pulse meanwhile."""


class Watch:
    """Notices ranks that are silent for too long, and those that tell of an error."""

    def __init__(self, rendezvous: Rendezvous, hosts: Mapping[int, str], *, start_s: float) -> None:
        """Begin to watch.

        Args:
            rendezvous: of the job.
            hosts: the ranks to watch, with the names of their machines.
            start_s: for how many seconds they may be missing at the beginning.
        """
        self._rendezvous, self._hosts, self._start_s = rendezvous, hosts, start_s
        self._pulses = dict.fromkeys(hosts, -1)
        self._deadlines = dict.fromkeys(hosts, time.monotonic() + start_s)
        self.leave_by = float("inf")

    @property
    def is_leaving(self) -> bool:
        """Whether this process was told to end."""
        return self.leave_by < float("inf")

    def complaints(self) -> list[str]:
        """What is wrong with the ranks, a line each."""
        told = {state.rank: state for state in self._rendezvous.ranks()}
        lines = [self._complaint(rank, told.get(rank)) for rank in self._hosts]
        return [line for line in lines if line]

    def gone(self) -> list[str]:
        """The ranks that have neither left nor a pulse, a line each; to be asked at the end."""
        self.complaints()
        before, deadline = dict(self._pulses), time.monotonic() + _GONE_S + 1
        while not self._rendezvous.is_done():
            there = {state.rank for state in self._rendezvous.ranks()} & before.keys()
            quiet = [rank for rank in there if self._pulses[rank] == before[rank]]
            silent = [rank for rank in quiet if self._silence_s(rank) >= _GONE_S]
            if len(silent) == len(quiet) or time.monotonic() > deadline:
                return [f"{self._hosts[rank]} (rank {rank}) is gone." for rank in silent]
            time.sleep(POLL_S)
            self.complaints()
        return []

    def _silence_s(self, rank: int) -> float:
        return _SILENT_S - (self._deadlines[rank] - time.monotonic())

    def is_any_silent(self) -> bool:
        """Whether a rank that was heard of is heard of no more, and has told no error."""
        told = {state.rank for state in self._rendezvous.ranks() if not state.error}
        return any(rank in told and self._silence_s(rank) >= _SILENT_S for rank in self._hosts)

    def has_begun(self, rank: int) -> bool:
        """Whether a rank was ever heard of."""
        return self._pulses[rank] >= 0

    def _complaint(self, rank: int, state: RankState | None) -> str:
        if state is not None and state.error:
            return f"{self._hosts[rank]}: {state.error}"
        if state is not None and state.pulse != self._pulses[rank]:
            self._pulses[rank] = state.pulse
            self._deadlines[rank] = time.monotonic() + _SILENT_S
        if time.monotonic() <= self._deadlines[rank]:
            return ""
        if self.has_begun(rank):
            return f"{self._hosts[rank]} (rank {rank}) has been silent for {_SILENT_S:.0f} s."
        return f"{self._hosts[rank]} (rank {rank}) did not start within {self._start_s:.0f} s."
