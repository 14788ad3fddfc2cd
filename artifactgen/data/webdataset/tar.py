"""Where the files of a tar archive lie, from its headers alone.

Python's own `tarfile` makes an object of each member, which takes minutes for millions. Formats:
V7, ustar, GNU (long names, large sizes) and pax (paths, sizes).
https://pubs.opengroup.org/onlinepubs/9699919799/utilities/pax.html
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from artifactgen.errors import DataError

_BLOCK = 512
_READ_AHEAD = 8192
_ZEROS = bytes(_BLOCK)
_FILES, _FOLDERS, _LINKS, _SPARSE = b"\x000" + b"7", b"5", b"12", b"S"
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL = b"L", b"K", b"xX", b"g"
_MAX_EXTENSION = 1 << 20
"""Bytes of a header that precedes another; more is no name."""
_RECORD = re.compile(rb"(\d{1,7}) ([^=]+)=")


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive, or a link."""

    name: str
    offset: int
    """Of its content in the archive, in bytes."""
    size: int
    is_link: bool = False


@dataclass(slots=True)
class Archive:
    """An open tar archive."""

    path: str
    descriptor: int
    size_bytes: int
    _buffer: bytes = b""
    _buffered_at: int = 0
    _common: dict[str, bytes] = field(default_factory=dict)
    """What pax headers say of all members that follow."""

    def members(self) -> Iterator[Member]:
        """The files and links in their order; folders, devices and pipes are left out.

        Raises:
            DataError: it is cut short, damaged, or holds sparse files.
        """
        offset, extended = 0, dict[str, bytes]()
        while header := self._header(offset):
            kind = header[156:157]
            size = self._size(header, offset, extended)
            content = offset + _BLOCK
            offset = content + size + -size % _BLOCK
            if kind in _LONG_NAME + _LONG_LINK + _PAX + _PAX_GLOBAL:
                self._extend(extended, kind, content, size)
                continue
            self._require(content + size)
            if kind in _SPARSE or (extended and any(map(_is_sparse, extended))):
                raise self._wrong("holds a sparse file. Pack it anew without --sparse")
            name = _name(header, extended)
            extended = dict(self._common)
            if kind in _LINKS or (kind in _FILES and not name.endswith("/")):
                yield Member(name, content, 0 if kind in _LINKS else size, kind in _LINKS)
            if kind in _LINKS + _FOLDERS + b"346":
                offset = content

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the archive; as many as there are."""
        begin = offset - self._buffered_at
        if begin < 0 or begin + size > len(self._buffer):
            want = max(size, _READ_AHEAD)
            self._buffer = os.pread(self.descriptor, want, offset)
            self._buffered_at, begin = offset, 0
        return self._buffer[begin : begin + size]

    def _header(self, offset: int) -> bytes | None:
        """The header at an offset; None where the archive ends."""
        header = self.read(offset, _BLOCK)
        if len(header) < _BLOCK:
            if offset != self.size_bytes:
                self._require(offset + _BLOCK)
            raise self._wrong(
                "is cut short: it does not end with a block of zeros. Copy it anew. If it is "
                f"whole, add them: truncate -s +1024 {self.path}"
            )
        if header == _ZEROS:
            self._require_end(offset)
            return None
        stated = _number(header[148:156])
        if stated != 256 + sum(header[:148]) + sum(header[156:]) and stated != _signed(header):
            raise self._wrong(f"is damaged, or no tar archive: no header at byte {offset:,}")
        return header

    def _size(self, header: bytes, offset: int, extended: dict[str, bytes]) -> int:
        text = extended.get("size")
        size = _number(header[124:136]) if text is None else _number(text, base=10)
        if size is None or size < 0:
            raise self._wrong(f"is damaged: no size in the header at byte {offset:,}")
        return size

    def _extend(self, extended: dict[str, bytes], kind: bytes, offset: int, size: int) -> None:
        """Take in a header that says more of the next member, or of all."""
        if size > _MAX_EXTENSION:
            raise self._wrong(f"is damaged: a name of {size:,} bytes at byte {offset:,}")
        self._require(offset + size)
        content = self.read(offset, size)
        if kind in _LONG_NAME:
            extended["path"] = content.partition(b"\0")[0]
        elif kind in _PAX + _PAX_GLOBAL:
            found = self._records(content, offset)
            extended |= found
            if kind in _PAX_GLOBAL:
                self._common |= found

    def _records(self, content: bytes, offset: int) -> dict[str, bytes]:
        """`<length> <key>=<value>` and a line feed, one after another."""
        found, place = dict[str, bytes](), 0
        while place < len(content) and content[place]:
            record = _RECORD.match(content, place)
            length = int(record[1]) if record else 0
            if record is None or length <= 5 or place + length > len(content):
                raise self._wrong(f"is damaged: no pax header at byte {offset:,}")
            key = record[2].decode("utf-8", "surrogateescape")
            found[key] = content[record.end() : place + length - 1]
            place += length
        return found

    def _require(self, end: int) -> None:
        if end > self.size_bytes:
            raise self._wrong(
                f"is cut short: {self.size_bytes:,} bytes, and a file in it goes on to {end:,}. "
                "Copy it anew"
            )

    def _require_end(self, offset: int) -> None:
        """Nothing may come after the end: it would be missing without a word."""
        while found := os.pread(self.descriptor, 1 << 20, offset):
            if found.count(0) != len(found):
                raise self._wrong(
                    "goes on after its end, as archives do that were joined by cat. Pack it anew: "
                    "tar -xif …"
                )
            offset += len(found)

    def _wrong(self, reason: str) -> DataError:
        return DataError(f"{self.path} {reason}.")


def _name(header: bytes, extended: dict[str, bytes]) -> str:
    name = extended.get("path")
    if name is None:
        name = header[:100].partition(b"\0")[0]
        prefix = header[345:500].partition(b"\0")[0]
        if prefix and header[257:263] == b"ustar\0":
            name = prefix + b"/" + name
    return name.decode("utf-8", "surrogateescape")


def _is_sparse(key: str) -> bool:
    return key.startswith("GNU.sparse")


def _number(text: bytes, *, base: int = 8) -> int | None:
    """A number in a header: digits of the base, or big-endian after a byte that no digit is."""
    if base == 8 and text[:1] in (b"\x80", b"\xff"):
        return int.from_bytes(text[1:], "big") - (256 ** (len(text) - 1) if text[0] == 255 else 0)
    try:
        return int(text.partition(b"\0")[0].strip() or b"0", base)
    except ValueError:
        return None


def _signed(header: bytes) -> int:
    """The sum that some old programs state."""
    return int(256 + sum(struct.unpack_from("148b8x356b", header)))
