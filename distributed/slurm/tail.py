"""A log file that another machine writes, read as it grows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_MOST = 1 << 22
_ANCHOR = 64


class Tail:
    """Gives the lines that a file has gained; the file may come later, or be written anew.

    It is opened for each look: on NFS an open file may never show what others have appended.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._anchor = b""
        """The last bytes that were read: where they are gone, the file was written anew."""
        self._begun = b""

    def lines(self) -> Iterator[str]:
        """Whole lines since the last look, without their ends."""
        while gained := self._read():
            *whole, self._begun = (self._begun + gained).split(b"\n")
            yield from (line.decode("utf-8", "replace") for line in whole)

    def rest(self) -> Iterator[str]:
        """What is left when nothing is to come, also a line that was never ended."""
        yield from self.lines()
        if self._begun:
            yield self._begun.decode("utf-8", "replace")
            self._begun = b""

    def _read(self) -> bytes:
        try:
            with self.path.open("rb") as file:
                ended = b"" if self._goes_on(file) else self._start_over(file)
                gained = file.read(_MOST)
        except OSError:  # not there yet, or not at the moment
            return b""
        self._offset += len(gained)
        self._anchor = (self._anchor + gained)[-_ANCHOR:]
        return ended + gained

    def _goes_on(self, file: BinaryIO) -> bool:
        file.seek(self._offset - len(self._anchor))
        return file.read(len(self._anchor)) == self._anchor

    def _start_over(self, file: BinaryIO) -> bytes:
        """Go to the beginning; the end of the line that was begun before."""
        file.seek(0)
        self._offset, self._anchor = 0, b""
        return b"\n" if self._begun else b""
