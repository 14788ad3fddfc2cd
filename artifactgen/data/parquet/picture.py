"""What a cell of a column of pictures holds: a file, or the place of one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artifactgen.errors import RecordError

_ONLY_PATHS = (
    "The table holds paths, relative to its folder, and no pictures: put the files there, or save "
    "the data set by save_to_disk, which takes them in"
)


def picture_of(value: Any, *, beside: Path) -> bytes:
    """The file of the picture that a cell holds.

    Args:
        value: bytes, `{bytes, path}`, or a list of those.
        beside: folder that paths are relative to.

    Raises:
        RecordError: there is no picture, more than one, or an address on the web.
        OSError: the file at the path cannot be read.
    """
    value = _the_only(value)
    if isinstance(value, bytes):
        return value
    if isinstance(value, Mapping) and value.get("bytes") is not None:
        return bytes(value["bytes"])
    file = file_of(value, beside=beside)
    if file is None:
        raise RecordError("no picture in this row")
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        # With its number: where the table's folder is gone as well, it is not the record's fault.
        raise FileNotFoundError(
            error.errno, f"{error.strerror}. {_ONLY_PATHS}", str(file)
        ) from error


def file_of(value: Any, *, beside: Path) -> Path | None:
    """The file at the path that a cell holds in place of bytes; None where it holds none.

    Raises:
        RecordError: see `picture_of`.
    """
    value = _the_only(value)
    if not isinstance(value, Mapping) or value.get("bytes") is not None:
        return None
    path: str | None = value.get("path")
    if not path:
        return None
    if "://" in path:
        raise RecordError(f"the picture is not in the table, but at {path}: download it first")
    return beside / path


def _the_only(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    if len(value) > 1:
        raise RecordError(f"{len(value)} pictures in one row: make a row of each")
    return value[0] if value else None
