"""Writing files so that a name never stands for half of its content.

A file is written into the run's own temporary folder, on the same file system, and renamed to its
final place. A process that dies leaves at most files in that folder, which the next run removes
without having to look through millions of pictures.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path, *, temp_dir: Path, durable: bool = True) -> Iterator[Path]:
    """Give a temporary path; what is there when the block ends takes the place of `path`.

    Args:
        path: final place; its folder is made.
        temp_dir: folder on the same file system; made where missing.
        durable: sync to disk before the rename. Pictures leave that to `sync_filesystem`, once
            for each shard: a sync for each picture costs six times the write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temp_dir.mkdir(parents=True, exist_ok=True)
    temp = temp_dir / f"{uuid.uuid4().hex}{path.suffix}"
    try:
        yield temp
        if durable:
            _sync(temp)
        temp.replace(path)
        if durable:
            _sync(path.parent)
    finally:
        temp.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes, *, temp_dir: Path, durable: bool = True) -> None:
    """Write a whole file, or nothing."""
    with replacing(path, temp_dir=temp_dir, durable=durable) as temp:
        temp.write_bytes(content)


def write_json(path: Path, value: Any, *, temp_dir: Path) -> None:
    """Write a value of plain types as indented UTF-8 JSON, or nothing.

    A lone surrogate, which UTF-8 cannot hold, is written as JSON's own escape of it.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(path, f"{text}\n".encode("utf-8", "backslashreplace"), temp_dir=temp_dir)


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote; `ValueError` where the file is damaged."""
    return json.loads(path.read_text("utf-8"))


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's content, in hex, with flat memory."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_filesystem(path: Path) -> None:
    """Flush everything written so far to the file system that holds `path` (Linux `syncfs`)."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(path))
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
