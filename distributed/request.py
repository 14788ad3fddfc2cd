"""What is asked for: a composed configuration in plain containers. It is light, and picklable."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """One run, as it was asked for."""

    configuration: Mapping[str, Any]
    """Interpolations resolved; `output_dir` is the run's own."""
    command: str
    """What was typed; typed again, it resumes the run."""
    import_from: tuple[str, ...] = ()
    """Folders of the user's own modules."""
