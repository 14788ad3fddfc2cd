"""What a checkpoint says of itself beside its weights: how its model was made and trained.

Lightning's `hyper_parameters`, timm's `args`, what people save beside their weights, and a
`config.json` beside the file, as timm and the hub of Hugging Face write it. Nothing is believed but
plain values of the right form under names that leave no doubt.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from artifactgen.models.checkpoint import Checkpoint, plain

Value = TypeVar("Value")

_MODEL = re.compile(
    r"(model|net|network|backbone|encoder|vit|cnn|module|timm)"
    r"(_?(args|kwargs|config|cfg|params|options|hparams))?"
    r"|args|kwargs|config|cfg|params|options|hparams|init_args|hyper_parameters"
)
"""Keys below which a model is described."""
_MODEL_NAMED = re.compile(r"(model|net|network|backbone|encoder|vit|cnn|timm)[^.]*\.$")
_DATA = re.compile(
    r"(data|datamodule|dataset)(_?(args|kwargs|config|cfg|params|hyper_parameters))?"
    r"|pretrained_cfg|transforms?|preprocess\w*|normali[sz]\w*|input|image|images"
)
"""Keys below which images are."""
_ARCHITECTURE = (
    *("architecture", "arch", "backbone", "backbone_name", "model_name", "model_arch"),
    *("timm_name", "timm_model", "timm_model_name", "timm_backbone", "encoder", "encoder_name"),
    *("network", "net", "model", "base_model", "variant", "name"),
)
_NUM_CLASSES = ("num_classes", "n_classes", "num_class", "nb_classes", "num_labels", "classes")
_CLASSES = (
    *("class_names", "classes", "label_names", "class_labels", "labels"),
    *("id2label", "idx_to_class", "class_to_idx", "label2id"),
)
_IMAGE_SIZE = ("img_size", "image_size", "input_size", "resolution")
_PAIRS = [
    *((f"{of}mean", f"{of}std") for of in ("", "pixel_", "image_", "img_", "norm_", "data_")),
]
_DEPTH, _MOST_PIXELS, _MOST_BYTES = 6, 16384, 4_000_000


@dataclass(frozen=True, slots=True)
class Said:
    """A value, and where it is said: `hyper_parameters.model.num_heads`."""

    value: Any
    where: str


@dataclass(frozen=True, slots=True)
class Stated:
    """What is said of a model; None or empty for what is not said, or not in one voice."""

    num_classes: int | None = None
    classes: tuple[str, ...] = ()
    """Names of the classes in the order of the classifier's outputs."""
    mean: tuple[float, ...] | None = None
    """For pixels in [0, 1], like `std`; both are said, or neither."""
    std: tuple[float, ...] | None = None
    image_size: tuple[int, int] | None = None
    """(H, W) in pixels."""
    architectures: tuple[Said, ...] = ()
    """Every text that could name one, the likeliest first: a family knows its own."""
    options: Mapping[str, Said] = field(default_factory=dict)
    """Whatever is said in the places where a model is described, by name."""
    source: Mapping[str, str] = field(default_factory=dict)
    """Where the other fields of this class are said, by their names."""


def read_stated(checkpoint: Checkpoint) -> Stated:
    """What a checkpoint says of its model, in the file and in a `config.json` beside it."""
    scopes = _scopes(checkpoint.meta, _read_config(checkpoint.path))
    sizes = {
        "num_classes": _first(scopes, _NUM_CLASSES, _count),
        "classes": _first(scopes, _CLASSES, _class_names),
        "image_size": _first(scopes, _IMAGE_SIZE, _size),
    }
    said = {name: found for name, found in sizes.items() if found}
    said |= _mean_and_std(scopes)
    return Stated(
        **{name: found.value for name, found in said.items()},
        architectures=tuple(_architectures(scopes)),
        options=_options(scopes),
        source={name: found.where for name, found in said.items()},
    )


@dataclass(frozen=True, slots=True)
class _Scope:
    """One mapping of the file, and how near it is to the model."""

    path: str
    values: Mapping[str, Any]
    of_model: bool
    rank: tuple[bool, int]
    """Of two that say the same, the smaller: the file before its neighbour, the inner one first."""

    def says(self, key: str) -> str:
        """Where a value of this mapping is said."""
        return f"{self.path}{key}"


def _scopes(meta: Mapping[str, Any], config: Mapping[str, Any]) -> list[_Scope]:
    found = [*_below(meta, "", beside=False), *_below(config, "config.json: ", beside=True)]
    return sorted(found, key=lambda scope: scope.rank)


def _below(
    values: Mapping[str, Any], path: str, *, beside: bool, of_model: bool = True, depth: int = 0
) -> Iterator[_Scope]:
    yield _Scope(path, values, of_model, (beside, -depth))
    for key, inner in values.items() if depth < _DEPTH else ():
        is_model, is_data = _MODEL.fullmatch(key), _DATA.fullmatch(key)
        if isinstance(inner, Mapping) and (is_model or is_data):
            own = of_model and is_data is None
            yield from _below(inner, f"{path}{key}.", beside=beside, of_model=own, depth=depth + 1)


def _read_config(path: Path) -> Mapping[str, Any]:
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


def _first(
    scopes: list[_Scope], names: tuple[str, ...], form: Callable[[Any, _Scope], Value | None]
) -> Said | None:
    """What the likeliest places say under the first of the names that has the right form there.

    None where two places that are as likely say different things.
    """
    ranked: dict[tuple[bool, bool, int], list[Said]] = {}
    for scope in scopes:
        for name in names:
            value = form(scope.values.get(name), scope)
            if value is not None:
                rank = (scope.rank[0], not scope.of_model, scope.rank[1])
                ranked.setdefault(rank, []).append(Said(value, scope.says(name)))
                break
    likeliest = ranked[min(ranked)] if ranked else []
    agree = all(said.value == likeliest[0].value for said in likeliest)
    return likeliest[0] if likeliest and agree else None


def _mean_and_std(scopes: list[_Scope]) -> dict[str, Said]:
    for of_mean, of_std in _PAIRS:
        pair = _first(scopes, (of_mean,), _normalization(of_mean, of_std))
        if pair is not None:
            mean, std = pair.value
            where = pair.where.removesuffix(of_mean) + of_std
            return {"mean": Said(mean, pair.where), "std": Said(std, where)}
    return {}


def _architectures(scopes: list[_Scope]) -> Iterator[Said]:
    for scope in scopes:
        for key in _ARCHITECTURE if scope.of_model else ():
            value = scope.values.get(key)
            # A run has a name as well: that of a model stands below one.
            if isinstance(value, str) and (key != "name" or _MODEL_NAMED.search(scope.path)):
                yield Said(value, scope.says(key))


def _options(scopes: list[_Scope]) -> dict[str, Said]:
    """By name what the likeliest place says; nothing where two that are as likely disagree."""
    keys = dict.fromkeys(key for scope in scopes if scope.of_model for key in scope.values)
    of_model = [scope for scope in scopes if scope.of_model]
    found = {key: _first(of_model, (key,), lambda value, _: value) for key in keys}
    return {key: said for key, said in found.items() if said is not None}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _count(value: Any, _: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _class_names(value: Any, _: object) -> tuple[str, ...] | None:
    """Names in the order of their indices, of a list or of either direction of a mapping."""
    if isinstance(value, Mapping):
        pairs = value.items()
        by_index = {int(k): v for k, v in pairs if isinstance(k, str) and k.isdecimal()}
        if len(by_index) != len(value):
            by_index = {v: k for k, v in pairs if isinstance(v, int)}
        if sorted(by_index) != list(range(len(value))):
            return None
        value = [by_index[index] for index in range(len(value))]
    if not isinstance(value, list) or not value:
        return None
    distinct = all(isinstance(name, str) for name in value) and len(set(value)) == len(value)
    return tuple(value) if distinct else None


def _size(value: Any, _: object) -> tuple[int, int] | None:
    """(H, W) of one side, of both, or of (C, H, W)."""
    sides = value if isinstance(value, list) else [value, value]
    if not all(_count(side, None) and side <= _MOST_PIXELS for side in sides):
        return None
    return tuple(sides[-2:]) if len(sides) in (2, 3) and min(sides[-2:]) >= 8 else None


def _normalization(
    of_mean: str, of_std: str
) -> Callable[[Any, _Scope], tuple[tuple[float, ...], tuple[float, ...]] | None]:
    """Mean and std that are said in the same place, for pixels in [0, 1] or in [0, 255]."""

    def form(_: Any, scope: _Scope) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        mean, std = _numbers(scope.values.get(of_mean)), _numbers(scope.values.get(of_std))
        if not mean or len(mean) != len(std) or min(std) <= 0:
            return None
        of_bytes = min(std) > 1 and min(mean) >= 0 and max(*mean, *std) <= 255
        scale = 255 if of_bytes else 1
        if max(map(abs, mean)) > scale or max(std) > scale:
            return None
        return tuple(value / scale for value in mean), tuple(value / scale for value in std)

    return form


def _numbers(value: Any) -> tuple[float, ...]:
    """A number or a list of them; empty for anything else."""
    values = value if isinstance(value, list) else [value]
    return tuple(map(float, values)) if all(map(_is_number, values)) else ()
