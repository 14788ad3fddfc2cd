"""What a checkpoint says of itself beside its weights: how its model was made and trained.

Lightning's `hyper_parameters`, timm's `args`, what people save beside their weights, and a
`config.json` beside the file, as timm and the hub of Hugging Face write it, where it is of the same
model. Read are plain values of the right form, under names and in places that mean one thing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from artifactgen.models.checkpoint import Checkpoint
from artifactgen.models.forms import choice, class_names, count, normalization, share, size
from artifactgen.models.scopes import Scope, read_config, scopes_of
from artifactgen.types import CropMode, Interpolation

if TYPE_CHECKING:
    from artifactgen.models.base import Family

Value = TypeVar("Value")

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
_FRAMING: Mapping[str, Callable[[str, Scope], Any]] = {
    "crop_pct": share,
    "crop_mode": choice(CropMode),
    "interpolation": choice(Interpolation),
}
_PAIRS = [
    *((f"{of}mean", f"{of}std") for of in ("", "pixel_", "image_", "img_", "norm_", "data_")),
]


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
    framing: Mapping[str, Any] = field(default_factory=dict)
    """Fields of `artifactgen.types.Framing`, of those that are said."""
    architectures: tuple[Said, ...] = ()
    """Every text that could name one, the likeliest first: a family knows its own."""
    options: Mapping[str, Said] = field(default_factory=dict)
    """Whatever is said in the places where a model is described, by name."""
    source: Mapping[str, str] = field(default_factory=dict)
    """Where the other fields of this class are said, by their names."""
    aside: str = ""
    """What a `config.json` beside the file is of, where that is not this model: all that is in it
    is left aside."""


def read_stated(checkpoint: Checkpoint, family: Family) -> Stated:
    """What a checkpoint says of its model: in the file, and in a `config.json` of the same model.

    Args:
        checkpoint: beside which the other file may lie.
        family: as the user has it; it knows whether a config is of its model.
    """
    own, config = _stated(checkpoint.meta, {}), read_config(checkpoint.path)
    if not config:
        return own
    if family.is_described_by(_stated({}, config), own):
        return _stated(checkpoint.meta, config)
    return replace(own, aside=_subject(config))


def read_for_advice(checkpoint: Checkpoint) -> Stated:
    """What is said in a checkpoint and beside it, whatever model that is of."""
    return _stated(checkpoint.meta, read_config(checkpoint.path))


def _stated(meta: Mapping[str, Any], config: Mapping[str, Any]) -> Stated:
    scopes = scopes_of(meta, config)
    sizes = {
        "num_classes": _first(scopes, _NUM_CLASSES, count),
        "classes": _first(scopes, _CLASSES, class_names),
        "image_size": _first(scopes, _IMAGE_SIZE, size),
    }
    said = {name: found for name, found in sizes.items() if found}
    said |= _mean_and_std(scopes)
    framing = {name: _first(scopes, (name,), form) for name, form in _FRAMING.items()}
    framed = {name: found for name, found in framing.items() if found}
    return Stated(
        **{name: found.value for name, found in said.items()},
        architectures=tuple(_architectures(scopes)),
        options=_options(scopes),
        framing={name: found.value for name, found in framed.items()},
        source={name: found.where for name, found in (said | framed).items()},
    )


def _subject(config: Mapping[str, Any]) -> str:
    """What model a config is of, as far as it says so."""
    kinds = config.get("architectures")
    named = (
        config.get("architecture"),
        config.get("model_type"),
        *(kinds if isinstance(kinds, list) else ()),
    )
    return next((name for name in named if isinstance(name, str)), "a model that it does not name")


def _first(
    scopes: list[Scope], names: tuple[str, ...], form: Callable[[str, Scope], Value | None]
) -> Said | None:
    """What the likeliest places say under the first of the names that has the right form there.

    None where two places that are as likely say different things.
    """
    ranked: dict[tuple[bool, bool, int], list[Said]] = {}
    for scope in scopes:
        for name in names:
            value = form(name, scope)
            if value is not None:
                rank = (scope.rank[0], not scope.of_model, scope.rank[1])
                ranked.setdefault(rank, []).append(Said(value, scope.says(name)))
                break
    likeliest = ranked[min(ranked)] if ranked else []
    agree = all(said.value == likeliest[0].value for said in likeliest)
    return likeliest[0] if likeliest and agree else None


def _mean_and_std(scopes: list[Scope]) -> dict[str, Said]:
    for of_mean, of_std in _PAIRS:
        pair = _first(scopes, (of_mean,), normalization(of_mean, of_std))
        if pair is not None:
            mean, std = pair.value
            where = pair.where.removesuffix(of_mean) + of_std
            return {"mean": Said(mean, pair.where), "std": Said(std, where)}
    return {}


def _architectures(scopes: list[Scope]) -> Iterator[Said]:
    for scope in scopes:
        for key in _ARCHITECTURE if scope.of_model else ():
            value = scope.values.get(key)
            # A run has a name as well: that of a model stands below one.
            if isinstance(value, str) and (key != "name" or scope.of == "model"):
                yield Said(value, scope.says(key))


def _options(scopes: list[Scope]) -> dict[str, Said]:
    """By name what the likeliest place says; nothing where two that are as likely disagree."""
    keys = dict.fromkeys(key for scope in scopes if scope.of_model for key in scope.values)
    of_model = [scope for scope in scopes if scope.of_model]
    found = {
        key: _first(of_model, (key,), lambda name, scope: scope.values.get(name)) for key in keys
    }
    return {key: said for key, said in found.items() if said is not None}
