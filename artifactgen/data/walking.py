"""The files below a folder, in the order of their names; no pipe is waited for, no loop endless."""

from __future__ import annotations

import errno
import glob
import os
import re
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path

from artifactgen.data.base import is_of_the_file
from artifactgen.errors import DataError

_LEADS_NOWHERE = (errno.ELOOP, errno.ENOTDIR)
"""What a link is told by that leads to itself, or through a file."""


def files_below(folder: Path, *, endings: tuple[str, ...]) -> Iterator[str]:
    """Paths of files relative to a folder, with `/`: its own, sorted, then those of its folders.

    Hidden files and folders are left out, and whatever is no regular file, such as a pipe or a
    folder with the name of a picture's. Links are followed, but not into what they lie in.

    Args:
        folder: where to look.
        endings: of the names that are looked for, in lower case.

    Raises:
        DataError: a folder that cannot be read: what is in it would be missing without a word.
    """
    yield from _walk(str(folder), "", endings, frozenset())


def folders_in(folder: Path) -> list[str]:
    """Names of the folders in a folder that are not hidden, sorted."""
    return [entry.name for entry in _entries(str(folder)) if _is(entry.is_dir)]


def files_matching(pattern: str, *, of_folder: str, key: str = "data.path") -> list[Path]:
    """A file, or all that a glob matches, sorted.

    Args:
        pattern: as the user gave it.
        of_folder: glob of the files of a folder, for the message.
        key: the option, likewise.

    Raises:
        DataError: it is a folder, or matches no file.
    """
    if Path(pattern).is_dir():
        raise DataError(f"{key}={pattern} is a folder; name its files: {pattern}/{of_folder}")
    # A name may hold glob characters itself; pathlib's glob takes no absolute patterns.
    found = [pattern] if Path(pattern).exists() else glob.glob(pattern, recursive=True)  # noqa: PTH207
    if not found:
        raise DataError(f"{key}={pattern} matches no file.")
    return [Path(name).absolute() for name in sorted(found)]


def root_of(pattern: str) -> Path:
    """The folder of a file, or the last one before the first that a glob or a brace stands for."""
    parts = Path(pattern).absolute().parts
    plain = takewhile(lambda part: not re.search(r"[*?\[{]", part), parts[:-1])
    return Path(*plain)


def _walk(
    folder: str, below: str, endings: tuple[str, ...], ancestors: frozenset[tuple[int, int]]
) -> Iterator[str]:
    stat = os.stat(folder)  # noqa: PTH116  # a million paths are quicker as text
    if (here := (stat.st_dev, stat.st_ino)) in ancestors:
        return
    entries = _entries(folder)
    for entry in entries:
        if entry.name.lower().endswith(endings) and _is(entry.is_file):
            yield below + entry.name
    for entry in (entry for entry in entries if _is(entry.is_dir)):
        yield from _walk(entry.path, f"{below}{entry.name}/", endings, ancestors | {here})


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            found = [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        if is_of_the_file(error):
            raise DataError(
                f"{folder}: cannot be listed ({error.strerror}). Give the right to read it, or "
                "take it out of the data set."
            ) from error
        raise
    return sorted(found, key=lambda entry: os.fsencode(entry.name))


def _is(kind: Callable[[], bool]) -> bool:
    """Whether an entry is of a kind; a link that leads nowhere, or to itself, is of none."""
    try:
        return kind()
    except OSError as error:
        if error.errno not in _LEADS_NOWHERE:
            raise
        return False
