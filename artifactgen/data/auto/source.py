"""What `data=auto` answers."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from artifactgen.data.auto.recognisers import recognise
from artifactgen.data.base import Catalog
from artifactgen.errors import ConfigError
from artifactgen.types import Failure, Sample


@dataclass(frozen=True, kw_only=True)
class Auto:
    """No source: its scan says what `path` is, and which choice of `data` reads it."""

    path: str
    """A file or a folder."""
    image_size: tuple[int, int] | None = None

    def scan(self) -> Catalog:
        """Say what it is.

        Raises:
            ConfigError: always: which command to use is an answer, and no run.
        """
        raise ConfigError(answer(self.path, "generate_artifacts …"))

    def read(
        self, catalog: Catalog, split: str, start: int, stop: int
    ) -> Iterator[Sample | Failure]:
        """Nothing is read."""
        raise AssertionError


def answer(path: str, command: str) -> str:
    """What a path is, and the command that reads it, for a person.

    Args:
        path: a file or a folder.
        command: without its options of `data`.

    Raises:
        DataError: there is nothing at the path.
    """
    found = recognise(Path(path))
    if not found.options:
        return f"{path}: {found.what}. {found.remedy}".rstrip()
    more = f"\n{found.remedy}" if found.remedy else ""
    return f"{path}: {found.what}. Use:\n  {command} {shlex.join(found.options)}{more}"
