"""The places of a checkpoint where a model, or its images, are described."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from artifactgen.models.checkpoint import plain

_SETTINGS = r"(args|kwargs|config|cfg|params|options|hparams)"
_MODEL = re.compile(rf"(model|net|network|backbone|encoder|vit|cnn|module|timm)(_?{_SETTINGS})?")
"""Keys below which a model is described."""
_ANY = re.compile(rf"{_SETTINGS}|init_args|hyper_parameters")
"""Keys below which there is more of the same."""
_DATA = re.compile(
    r"(data|datamodule|dataset)(_?(args|kwargs|config|cfg|params|hyper_parameters))?"
    r"|pretrained_cfg|transforms?|preprocess\w*|normali[sz]\w*|input|image|images"
)
"""Keys below which images are."""
_DEPTH, _MOST_BYTES = 6, 4_000_000

Of = Literal["all", "model", "images"]


@dataclass(frozen=True, slots=True)
class Scope:
    """One mapping of the file, and how near it is to the model."""

    path: str
    values: Mapping[str, Any]
    of: Of
    """What it describes; `all` at the top, and below what is no more than a container."""
    rank: tuple[bool, int]
    """Of two that say the same, the smaller: the file before its neighbour, the inner one first."""

    @property
    def of_model(self) -> bool:
        return self.of != "images"

    def says(self, key: str) -> str:
        """Where a value of this mapping is said."""
        return f"{self.path}{key}"


def scopes_of(meta: Mapping[str, Any], config: Mapping[str, Any]) -> list[Scope]:
    """Of a file and of its neighbour, every mapping that is of a model or of its images."""
    found = [*_below(meta, "", beside=False), *_below(config, "config.json: ", beside=True)]
    return sorted(found, key=lambda scope: scope.rank)


def _below(
    values: Mapping[str, Any], path: str, *, beside: bool, of: Of = "all", depth: int = 0
) -> Iterator[Scope]:
    yield Scope(path, values, of, (beside, -depth))
    for key, inner in values.items() if depth < _DEPTH else ():
        if not isinstance(inner, Mapping):
            continue
        own = of
        if _DATA.fullmatch(key):
            own = "images"
        elif _MODEL.fullmatch(key):
            own = "images" if of == "images" else "model"
        elif not _ANY.fullmatch(key):
            continue
        yield from _below(inner, f"{path}{key}.", beside=beside, of=own, depth=depth + 1)


def read_config(path: Path) -> Mapping[str, Any]:
    """The `config.json` beside a checkpoint, where it is one of timm or of Hugging Face."""
    file = path.parent / "config.json"
    try:
        if not file.is_file() or file.stat().st_size > _MOST_BYTES:
            return {}
        content = plain(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return {}
    known = {"architecture", "pretrained_cfg", "architectures", "model_type", "id2label"}
    return content if isinstance(content, dict) and known & content.keys() else {}
