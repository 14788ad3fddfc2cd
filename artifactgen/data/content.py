"""Whether files still hold what they held, told from a few of their bytes."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from artifactgen.data.base import is_of_the_file

_BLOCK_BYTES = 4096
_BLOCKS_OF_A_FILE = 64
_BLOCKS_OF_ALL = 8192
_BLOCKS_AT_LEAST = 3
"""The first, the middle and the last."""
_READERS = 16

MOST_SAMPLED = 8192
"""Files of a data set that are looked at, evenly spaced, where it has more."""


def files_digest(paths: Sequence[Path]) -> str:
    """One digest, in hex, of what many files hold, in their order; see `content_digest`.

    Of up to 128 files 64 blocks each are read, of more of them fewer, down to three: all together
    8,192, or three for each file where those are more. Many at once, since a shared file system
    answers each of them late.

    Raises:
        OSError: of a kind that may pass.
    """
    share = _BLOCKS_OF_ALL // max(len(paths), 1)
    blocks = min(max(share, _BLOCKS_AT_LEAST), _BLOCKS_OF_A_FILE)
    with ThreadPoolExecutor(_READERS, thread_name_prefix="content") as pool:
        digests = pool.map(partial(content_digest, blocks=blocks), paths)
        return hashlib.sha256(b"".join(digests)).hexdigest()


def content_digest(path: Path, *, blocks: int = _BLOCKS_OF_A_FILE) -> bytes:
    """A digest of a file's size and of blocks of 4 KiB, evenly spaced over it.

    Of a file that is smaller than they are, all is taken. One that cannot be read has an empty
    digest: it fails where it is read.

    The first block and the last are among them: of a gzip file the last ends in its checksum, so
    that no change of the content escapes. Of others a change between the blocks does. Takes a
    millisecond, whatever the size, and is the same wherever the file lies.

    Raises:
        OSError: of a kind that may pass.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            return b""  # a pipe would be waited for
        with path.open("rb", buffering=0) as file:
            return _digest(file.fileno(), blocks)
    except ValueError:  # of a NUL in a path that a table gives
        return b""
    except OSError as error:
        if is_of_the_file(error):
            return b""
        raise


def file_version(path: Path | str) -> tuple[int, ...]:
    """What tells whether a file is still the one that was opened: another one has another version.

    Raises:
        OSError: there is no such file.
    """
    found = os.stat(path)  # noqa: PTH116  # where a path is text, it is asked for often
    return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size


def _digest(descriptor: int, blocks: int) -> bytes:
    size = os.fstat(descriptor).st_size
    digest = hashlib.sha256(str(size).encode())
    if size <= blocks * _BLOCK_BYTES:
        digest.update(os.pread(descriptor, size, 0))
        return digest.digest()
    for block in range(blocks):
        offset = block * (size - _BLOCK_BYTES) // (blocks - 1)
        digest.update(os.pread(descriptor, _BLOCK_BYTES, offset))
    return digest.digest()
