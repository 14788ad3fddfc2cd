"""Files that options of a model name: what is in them decides, not where they lie.

This file needs no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifactgen.errors import ConfigError
from artifactgen.models.hub import described_in


@dataclass(frozen=True, slots=True)
class NamedFiles:
    """What one option names."""

    option: str
    """Of the model, such as `text_features`."""
    paths: tuple[Path, ...]
    """Absolute."""
    sha256: str
    """Of what is in them, in hex."""

    def require_same(self) -> None:
        """`ConfigError` if something else is in them now."""
        digest = ""
        with suppress(OSError):
            digest = _digest(self.paths)
        if digest != self.sha256:
            names = ", ".join(map(str, self.paths))
            raise ConfigError(
                f"model.{self.option}: {names}: changed while the job was running. Run the same "
                "command again."
            )

    def __str__(self) -> str:
        return f"content {self.sha256}"


def named_files(options: Mapping[str, Any]) -> tuple[NamedFiles, ...]:
    """The files that options name, as far as there are any: their family refuses others."""
    path, vectors = (options.get(name) for name in ("path", "text_features"))
    paths = {
        "path": described_in(path) if isinstance(path, str) else (),
        "text_features": (Path(vectors).expanduser(),) if isinstance(vectors, str) else (),
    }
    there = {
        option: tuple(file.absolute() for file in files if file.is_file())
        for option, files in paths.items()
    }
    return tuple(NamedFiles(name, files, _digest(files)) for name, files in there.items() if files)


def by_content(options: Mapping[str, Any], files: tuple[NamedFiles, ...]) -> dict[str, Any]:
    """Options with what is in files in place of where they lie."""
    return {**options, **{named.option: str(named) for named in files}}


def _digest(paths: tuple[Path, ...]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        content = path.read_bytes()
        digest.update(f"{len(content)} ".encode())
        digest.update(content)
    return digest.hexdigest()
