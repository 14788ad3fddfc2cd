"""Which shards are under way, told by the workers, and what one died of that says no more."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from artifactgen.types import Shard

_DONE = "done"
_SIGNAL = re.compile(rb"\*\*\* (SIG(?:SEGV|BUS|FPE|ILL|ABRT)) received")
"""How Ray's workers report that they crash."""
_USE_LESS = "Set a smaller data.batch_size, data.num_workers or cluster.workers."


@dataclass(frozen=True, slots=True)
class Begun:
    """A folder with a file for each shard: the process of each try, and that it has ended."""

    folder: Path

    @contextmanager
    def __call__(self, shard: Shard) -> Iterator[None]:
        """The block does a shard; an error ends it as well, and only a death does not."""
        self._note(shard, str(os.getpid()))
        try:
            yield
        finally:
            self._note(shard, _DONE)

    def _note(self, shard: Shard, word: str) -> None:
        with (self.folder / shard.name).open("a") as file:
            file.write(f"{word}\n")

    def tries(self, shard: Shard) -> list[int]:
        """The processes that have begun with a shard, one after another."""
        return [int(word) for word in self._words(shard) if word != _DONE]

    def under_way(self, shards: Sequence[Shard]) -> list[Shard]:
        """The shards that were begun and have not ended, those with most tries alone."""
        open_shards = [s for s in shards if self._words(s)[-1:] not in ([], [_DONE])]
        most = max((len(self.tries(shard)) for shard in open_shards), default=0)
        return [shard for shard in open_shards if len(self.tries(shard)) == most]

    def _words(self, shard: Shard) -> list[str]:
        path = self.folder / shard.name
        return path.read_text().split() if path.exists() else []


def oom_kills() -> int:
    """How many processes the kernel has ended on this machine because memory ran out."""
    found = re.search(r"^oom_kill (\d+)$", _read(Path("/proc/vmstat")).decode(), re.MULTILINE)
    return int(found[1]) if found else 0


def cause(processes: Sequence[int], folder: Path, *, oom_kills: int) -> str:
    """What workers most likely died of.

    Args:
        processes: that died.
        folder: of their Ray, with what they have written.
        oom_kills: how many processes the kernel has ended meanwhile.
    """
    logs = folder / "session_latest" / "logs"
    written = [_read(file) for pid in processes for file in logs.glob(f"*-{pid}.err")]
    signals = {found[1].decode() for text in written if (found := _SIGNAL.search(text))}
    if signals:
        return (
            f"It crashed with {', '.join(sorted(signals))}: most likely a record of this shard "
            "breaks the library that decodes it. cluster=inline and debug=true tell more."
        )
    if oom_kills:
        return f"Memory ran out, and the kernel ended {oom_kills} process(es) here. {_USE_LESS}"
    return (
        "It was killed without a word, by a memory limit, by Ray where memory runs short, or by a "
        f"person. {_USE_LESS}"
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
