"""What there is at a path: kinds of files, and how many."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from artifactgen.data.walking import files_below, root_of
from artifactgen.errors import DataError, did_you_mean
from artifactgen.filetypes import describe_file

MOST = 100_000
"""Files that are looked at."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was looked at."""

    path: Path
    kinds: Counter[str]
    """How many files there are of each ending, in lower case."""
    first: dict[str, Path]
    """The first of each."""
    what: str | None
    """Of a file, what its content is; see `describe_file`."""

    @property
    def is_folder(self) -> bool:
        """Whether a folder was looked at."""
        return self.path.is_dir()

    @property
    def folder(self) -> Path:
        """What was looked at, or where it lies."""
        return self.path if self.is_folder else self.path.parent

    def count(self, *endings: str) -> int:
        """How many files have one of some endings."""
        return sum(self.kinds[ending] for ending in endings)

    def a(self, *endings: str) -> Path:
        """A file with one of some endings."""
        return next(self.first[ending] for ending in endings if ending in self.first)


def look(path: Path) -> Seen:
    """Look at a file or a folder; of a glob, at the folder that it starts from.

    Raises:
        DataError: there is nothing, or a pipe or a device.
    """
    if not path.exists() and any(mark in str(path) for mark in "*?[{"):
        path = root_of(str(path))
    if not path.exists():
        raise DataError(f"{path}: no such file or folder. {_near(path)}".rstrip())
    if not path.is_dir() and not path.is_file():
        raise DataError(f"{path} is no regular file and no folder.")
    kinds, first = Counter[str](), dict[str, Path]()
    names = islice(files_below(path, endings=("",)), MOST) if path.is_dir() else [""]
    for name in names:
        ending = _ending(name or path.name)
        kinds[ending] += 1
        first.setdefault(ending, path / name)
    return Seen(path, kinds, first, None if path.is_dir() else describe_file(path))


def _near(path: Path) -> str:
    there = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    near = did_you_mean(path.name, there)
    return near if near.startswith("Did") else ""


def _ending(name: str) -> str:
    """`.nii.gz` of `a.b.nii.gz`; of others, what follows the last dot."""
    stem, dot, last = name.lower().rpartition("/")[2].rpartition(".")
    if not dot or not stem:
        return ""
    before = stem.rpartition(".")[2]
    return f".{before}.{last}" if before in ("nii", "tar") and last != "tar" else f".{last}"
