"""Find the classifier that lies beside an encoder in a checkpoint, or say why none is certain."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from artifactgen.errors import CheckpointError, ConfigError, did_you_mean
from artifactgen.models.heads import WEIGHTED, WEIGHTLESS, Head, Layer
from artifactgen.models.naming import NamedWeights

_MOST_LAYERS = 64
_OF_PRETRAINING = re.compile(r"decode|proj|predict|proto|mask|embed|queue|momentum|ema|aux")
"""In names of what is as wide as a classifier's input and is none."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is known of a head before it is found."""

    width: int
    """Of what it takes."""
    classes: int | None = None
    name: str | None = None
    """In the checkpoint, if the user said it."""
    kinds: Sequence[str] | None = None
    """Of its layers, if the user said them."""


def find_head(
    state_dict: Mapping[str, Tensor],
    weights: NamedWeights,
    own: Mapping[str, Any],
    wanted: Wanted,
) -> Head | str:
    """The classifier beside the encoder, or why there is none that is certain; empty if none.

    It is looked for beside the encoder, then beside what that lies in, and so on. Of several, the
    one that has as many outputs as there are classes; where these are not known, the only one whose
    name is not that of something else, such as a decoder.

    Args:
        state_dict: the checkpoint's tensors.
        weights: those of them that lie below the encoder's prefix.
        own: names of the model.
        wanted: what is known of it.

    Raises:
        ConfigError: a kind of layer that there is not.
        CheckpointError: there is no head as the user describes it.
    """
    free = {name: state_dict[name] for name in weights.outside}
    free |= {
        weights.prefix + key: tensor for key, tensor in weights.tensors.items() if key not in own
    }
    levels = [
        list(_heads(free, level, weights.prefix, wanted.width)) for level in _levels(weights.prefix)
    ]
    if wanted.name is not None:
        named = _named([head for level in levels for head in level], wanted.name)
        return _decided(_told(named, wanted.kinds))
    other: list[Head] = []
    for heads in levels:
        fitting = [head for head in heads if _is_plausible(head, wanted.classes)]
        if len(fitting) > 1:
            return _several(fitting)
        if fitting:
            return _decided(_told(fitting[0], wanted.kinds))
        other += [head for head in heads if not _OF_PRETRAINING.search(head.path)]
    if not other or wanted.classes is None:
        return ""
    return _other_outputs(other[0], wanted.classes)


def linear_beside(state_dict: Mapping[str, Tensor], weights: NamedWeights) -> str:
    """A sentence on what could be a classifier, for a model into which none can be put."""
    linear = [
        name.removesuffix(".weight")
        for name in weights.outside
        if name.endswith(".weight") and state_dict[name].ndim == 2
    ]
    named = [path for path in linear if not _OF_PRETRAINING.search(path)]
    if not named:
        return ""
    return (
        f"{' and '.join(named[:2])} beside the encoder could be one, and the model's own is no "
        "single linear layer, in the place of which it could be put"
    )


def _is_plausible(head: Head, classes: int | None) -> bool:
    if classes is not None:
        return head.outputs == classes
    return not _OF_PRETRAINING.search(head.path)


def _decided(head: Head) -> Head | str:
    if head.is_clear:
        return head
    return (
        f"{head} lies beside the encoder, and what is between its layers leaves no trace in "
        f"weights: say it, as in {head.example()}"
    )


def _several(heads: Sequence[Head]) -> str:
    named = " and ".join(map(str, heads))
    options = " or ".join(f"model.head={head.path}" for head in heads)
    return f"{named} lie beside the encoder, and each could be the classifier: set {options}"


def _other_outputs(head: Head, classes: int) -> str:
    return (
        f"{head} lies beside the encoder and has {head.outputs} outputs for {classes} classes: "
        f"set model.num_classes={head.outputs} if it is the classifier"
    )


def _named(heads: Sequence[Head], name: str) -> Head:
    found = [head for head in heads if head.path == name or head.path.endswith(f".{name}")]
    if not found:
        there = ", ".join(map(str, heads)) or "none"
        raise CheckpointError(
            f"model.head={name}: no such classifier for this encoder in the checkpoint. "
            f"There is: {there}."
        )
    return next((head for head in found if head.path == name), found[0])


def _told(head: Head, kinds: Sequence[str] | None) -> Head:
    """The head with all of its layers as the user said them."""
    if kinds is None:
        return head
    for kind in kinds:
        if kind not in (*WEIGHTED, *WEIGHTLESS):
            hint = did_you_mean(kind, (*WEIGHTED, *WEIGHTLESS))
            raise ConfigError(f"model.head_layers: {kind} is no layer that is known here. {hint}")
    weighted = [(index, kind) for index, kind in enumerate(kinds) if kind in WEIGHTED]
    agree = [kind for _, kind in weighted] == [layer.kind for layer in head.layers]
    in_place = all(
        layer.index in (None, index)
        for (index, _), layer in zip(weighted, head.layers, strict=False)
    )
    if not agree or not in_place:
        listed = ", ".join(f"{layer} ({layer.path})" for layer in head.layers)
        raise CheckpointError(
            f"model.head_layers=[{','.join(kinds)}] does not fit the checkpoint, which has: "
            f"{listed}. Name all layers of the nn.Sequential in their order."
        )
    return replace(head, told=tuple(kinds))


def _levels(prefix: str) -> Iterator[str]:
    """`a.b.` as `a.b.`, `a.`, ``."""
    parts = prefix.split(".")[:-1]
    for length in range(len(parts), -1, -1):
        yield "".join(f"{part}." for part in parts[:length])


def _heads(free: Mapping[str, Tensor], level: str, prefix: str, width: int) -> Iterator[Head]:
    """What lies right below a level and could be fed with the encoder's output."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in free.items():
        if name.startswith(level):
            root = level + name[len(level) :].partition(".")[0]
            if not (prefix.startswith(f"{root}.") and prefix != level):
                groups.setdefault(root, {})[name] = tensor
    for root, tensors in groups.items():
        layers = _layers(tensors)
        sizes = [width, *(size for layer in layers for size in layer.sizes)]
        fit = all(a == b for a, b in zip(sizes[::2], sizes[1::2], strict=False))
        if layers and layers[-1].kind == "Linear" and fit:
            alone = len(layers) == 1 and layers[0].index is None
            yield Head(layers[0].path if alone else root, layers)


def _layers(tensors: Mapping[str, Tensor]) -> tuple[Layer, ...]:
    """The layers of a module in their order; none if one of them is not known."""
    by_path: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        path, _, key = name.rpartition(".")
        by_path.setdefault(path, {})[key] = tensor
    layers = [Layer(path, kind, of) for path, of in by_path.items() if (kind := _kind(of))]
    if len(layers) < len(by_path) or any((layer.index or 0) > _MOST_LAYERS for layer in layers):
        return ()
    if all(layer.index is not None for layer in layers):
        layers.sort(key=lambda layer: (layer.path.rpartition(".")[0], layer.index))
    return tuple(layers)


def _kind(tensors: Mapping[str, Tensor]) -> str:
    keys, weight = tensors.keys() - {"num_batches_tracked"}, tensors.get("weight")
    if weight is None or not weight.is_floating_point():
        return ""
    if weight.ndim == 2 and keys <= {"weight", "bias"}:
        return "Linear"
    if weight.ndim == 1 and keys == {"weight", "bias"}:
        return "LayerNorm"
    running = {"weight", "bias", "running_mean", "running_var"}
    return "BatchNorm1d" if weight.ndim == 1 and keys == running else ""
