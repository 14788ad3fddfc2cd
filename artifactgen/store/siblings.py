"""The parts of a run among themselves: who opens the directory, and who merges.

All of them hold the lock of the directory, see `lock`, as long as they live. This is a second one
that no one but them ever touches: a part at work holds it shared, and holds it alone to open the
directory and to merge. So the attempt of a part that has done its shards fails only while another
one has yet to make the same attempt: of all parts the last one succeeds, in whatever order they
end, and sees what all others have committed.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from artifactgen.store.atomic import write_bytes
from artifactgen.store.layout import Layout
from artifactgen.store.lock import try_lock


class Siblings:
    """What a part of a run holds beside the lock; at first nothing."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def try_alone(self) -> bool:
        """Whether no other part is at work, opens the directory or merges; keeps them out then.

        What was held before is given back first, so that of two that try one succeeds.
        """
        self.leave()
        return try_lock(self._file, fcntl.LOCK_EX)

    def try_join(self) -> bool:
        """Whether no other part opens the directory or merges; it cannot from now on."""
        self.leave()
        return try_lock(self._file, fcntl.LOCK_SH)

    def leave(self) -> None:
        """Give back what is held."""
        try_lock(self._file, fcntl.LOCK_UN)


@contextmanager
def siblings(lock: Path) -> Iterator[Siblings]:
    """Where a part stands, for the block; call with its part of the lock held.

    Args:
        lock: path of the directory's lock.
    """
    with lock.with_name(f"{lock.name}.parts").open("a+", encoding="utf-8") as file:
        yield Siblings(file)


def look_again(layout: Layout, scopes: Iterable[str]) -> None:
    """See what other machines have committed and merged up to now.

    On NFS a machine remembers for up to a minute that a name was not there. A change of its own
    makes it ask for the folder anew.
    """
    for state in map(layout.scope, scopes):
        for folder in (state.root, state.ledger):
            write_bytes(folder / ".seen", b"", temp_dir=layout.temp, durable=False)
