"""What a page is to the program: something drawn from a merged split and its files.

A page is a frozen dataclass of options, named under `_target_` in a YAML of `configs/page/`. It is
written on the driver at the end of a run, from what is on disk already, so that it costs a moment,
needs no device, and is the same whoever did the work and after whatever interruption. To add a
page, write a file in this folder and a YAML; see `docs/extending.md`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from artifactgen.artifacts.base import Excerpts
    from artifactgen.confusion import Confusion
    from artifactgen.job import Job
    from artifactgen.store.layout import Layout


@dataclass(frozen=True, slots=True)
class MergedRun:
    """What a page is drawn from: a run whose splits are merged."""

    job: Job
    """Where everything lies, and how to read the images of its records."""
    excerpts: Mapping[str, Excerpts]
    """Kind of artifact to what an overview shows of it."""
    confusions: Mapping[str, Confusion]
    """Split to its labels against predictions; not of those without either."""


class Page(ABC):
    """The options of a page."""

    files: ClassVar[tuple[str, ...]] = ()
    """What its files are called, as patterns below the output directory. A run that replaces what
    is there removes what has these names."""

    @abstractmethod
    def path(self, layout: Layout, split: str) -> Path:
        """Where the page of a split lies; the same for every split, if it shows all of them."""

    def is_due(self, layout: Layout, split: str) -> bool:
        """Whether it has to be written. A run removes the pages of splits that it adds to."""
        return not self.path(layout, split).exists()

    @abstractmethod
    def write(self, run: MergedRun, split: str) -> None:
        """Write it, atomically: see `artifactgen.store.atomic`."""
