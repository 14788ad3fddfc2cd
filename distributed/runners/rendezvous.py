"""How the ranks of a job find each other, and learn of the end: by files that all of them see.

    head.json       where the first rank's Ray is, and the secret to enter it; readable by its user
    rank-<n>.json   a rank's host, what it computes on, its pulse, and what went wrong with it
    left-<n>.json   the same of a rank that has left
    done.json       the end: every rank leaves

A file system of a cluster may answer late, but a file that is opened anew is read as it was closed
last (close-to-open consistency of NFS). So a pulse is a number that changes, not a time stamp.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from artifactgen.store.atomic import read_json, write_bytes

BEAT_S = 5.0
_STALE_S = 86_400.0
"""What was killed without a word leaves its folder."""
_FOLDER, _RANK, _LEFT = "ranks-", "rank-", "left-"
POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Head:
    """What a rank must know to join."""

    address: str
    """`host:port`."""
    token: str
    versions: Mapping[str, str]
    """Of what must be equal on all ranks."""


@dataclass(frozen=True, slots=True)
class RankState:
    """What a rank tells of itself."""

    rank: int
    host: str
    device: str = ""
    """What it computes on; empty until it knows."""
    workers: int = 0
    restarts: int = 0
    """How often its Ray was started again."""
    pulse: int = 0
    error: str = ""
    """What went wrong there; empty = nothing."""


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """The files of one step of one job."""

    folder: Path

    @classmethod
    def of_step(cls, shared: Path, step: str) -> Self:
        """Those of a step, in a folder that all nodes see."""
        return cls(shared.absolute() / f"{_FOLDER}{step}")

    def open(self) -> None:
        """Make the folder, for this user alone; the first rank does."""
        for stale in self.folder.parent.glob(f"{_FOLDER}*"):
            with suppress(OSError):  # another user's, or gone meanwhile
                times = [path.stat().st_mtime for path in (stale, *stale.iterdir())]
                if time.time() - max(times) > _STALE_S:
                    shutil.rmtree(stale)
        shutil.rmtree(self.folder, ignore_errors=True)  # ids begin anew on a new cluster
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700)

    def tell_end(self) -> None:
        """Tell every rank to leave."""
        with suppress(OSError):  # that the folder goes says the same
            self._write("done", {})

    def close(self, *, others: int = 0, wait_s: float = 0.0) -> None:
        """Remove the folder, when the ranks have had the time to see the end.

        Where one has not come yet, the word of the end stays for it, without the secret.

        Args:
            others: ranks beside the first one.
            wait_s: how long to wait for them.
        """
        self.tell_end()
        deadline = time.monotonic() + wait_s
        while any(s.rank and not s.error for s in self.ranks()) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        came = len({*self.folder.glob(f"{_RANK}[1-9]*.json"), *self.folder.glob(f"{_LEFT}*.json")})
        if came >= others:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        for path in self.folder.glob("*"):
            if path.name != "done.json":
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def remove_without(self, *ranks: int) -> None:
        """Remove the folder if only these ranks are left, in place of the first one."""
        if all(state.rank in ranks for state in self.ranks()):
            shutil.rmtree(self.folder, ignore_errors=True)

    def is_there(self) -> bool:
        """Whether the first rank has begun, and is not gone yet."""
        return self.folder.is_dir()

    def is_done(self) -> bool:
        """Whether the first rank has told the end."""
        return (self.folder / "done.json").exists()

    def publish(self, head: Head) -> None:
        """Tell where the head is."""
        self._write("head", asdict(head))

    def head(self) -> Head | None:
        """Where the head is, as soon as it is there."""
        found = self._read("head")
        return Head(**found) if found else None

    def tell(self, state: RankState) -> None:
        """Tell of a rank, in place of what it told before."""
        with suppress(OSError):  # the folder is gone: it is over
            self._write(f"{_RANK}{state.rank}", asdict(state), durable=False)

    def forget(self, rank: int) -> None:
        """Take back what a rank has told: it was here, and has left."""
        with suppress(OSError):
            told = self.folder / f"{_RANK}{rank}.json"
            told.rename(self.folder / f"{_LEFT}{rank}.json")

    def ranks(self) -> list[RankState]:
        """What the ranks have told last."""
        names = sorted(path.stem for path in self.folder.glob(f"{_RANK}*.json"))
        return [RankState(**found) for name in names if (found := self._read(name))]

    def _write(self, name: str, value: Mapping[str, Any], *, durable: bool = True) -> None:
        if not self.folder.is_dir():
            raise FileNotFoundError(self.folder)
        content = json.dumps(dict(value)).encode()
        path = self.folder / f"{name}.json"
        write_bytes(path, content, temp_dir=self.folder, durable=durable)

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = read_json(self.folder / f"{name}.json")
        except (OSError, ValueError):
            return None
        return found


@dataclass(slots=True)
class Pulse:
    """Tells every some seconds that a rank lives, as long as it does."""

    rendezvous: Rendezvous
    state: RankState
    _stop: threading.Event = field(default_factory=threading.Event)
    _telling: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def beating(self) -> Iterator[Self]:
        """Tell it for the block."""
        self.rendezvous.tell(self.state)
        thread = threading.Thread(target=self._beat, name="pulse", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join()

    def leave(self) -> None:
        """The rank has seen the end: nobody has to wait for it."""
        with self._telling:
            self._stop.set()
            self.rendezvous.forget(self.state.rank)

    def update(self, **changes: Any) -> None:
        """Tell something new of the rank."""
        with self._telling:
            if self._stop.is_set():
                return
            self.state = replace(self.state, **changes, pulse=self.state.pulse + 1)
            self.rendezvous.tell(self.state)

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_S):
            self.update()
