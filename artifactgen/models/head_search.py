"""Find the classifier that lies beside an encoder in a checkpoint, or say why none is certain."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from artifactgen.errors import CheckpointError, ConfigError, did_you_mean
from artifactgen.models.beside import free_tensors, heads_at, levels_above, modules_at
from artifactgen.models.heads import WEIGHTED, WEIGHTLESS, Head
from artifactgen.models.naming import NamedWeights

_MOST_MATRICES = 8
"""In a head; what has more is a network of its own."""
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_NO_CLASSIFIER = frozenset(
    (
        *("decoder", "decoders", "decode", "reconstruction", "mask", "masked", "queue"),
        *("proj", "projection", "projections", "projector", "projectors", "contrastive"),
        *("prototype", "prototypes", "proto", "protos", "embed", "embedding", "embeddings"),
        *("pooler", "momentum", "ema", "aux", "auxiliary", "domain", "discriminator"),
        *("regress", "regression", "regressor", "box", "bbox", "seg", "segmentation"),
    )
)
"""Words in names of what is as wide as a classifier's input and is none."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is known of a head before it is found."""

    width: int
    """Of what it takes."""
    classes: int | None = None
    """How many the user or the data set has."""
    stated: int | None = None
    """How many the checkpoint states: where nothing fits that, it is not believed."""
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
    one that has as many outputs as there are classes; where these are not known, the only one with
    more than one output whose name is not that of something else, such as a decoder.

    Args:
        state_dict: the checkpoint's tensors.
        weights: those of them that lie below the encoder's prefix.
        own: names of the model.
        wanted: what is known of it.

    Raises:
        ConfigError: a kind of layer that there is not.
        CheckpointError: there is no head as the user describes it.
    """
    free = free_tensors(state_dict, weights, own)
    levels = [
        list(heads_at(free, level, weights.prefix, wanted.width))
        for level in levels_above(weights.prefix)
    ]
    if wanted.name is not None:
        named = _named([head for level in levels for head in level], wanted.name)
        return _decided(_told(named, wanted.kinds))
    asked = (wanted.classes,) if wanted.classes is not None else (wanted.stated, None)
    for classes in dict.fromkeys(asked):
        for heads in levels:
            fitting = [head for head in heads if _is_plausible(head, classes, weights.prefix)]
            if len(fitting) > 1:
                return _several(fitting)
            if fitting:
                return _decided(_told(fitting[0], wanted.kinds))
    others = [head for heads in levels for head in heads]
    if not others:
        return unread_beside(state_dict, weights, own, "it has no form that is known here")
    words = [_no_classifier(head.path, weights.prefix) for head in others]
    word, head = min(zip(words, others, strict=True), key=lambda pair: bool(pair[0]))
    return _why_not(head, word, wanted.classes)


def unread_beside(
    state_dict: Mapping[str, Tensor], weights: NamedWeights, own: Mapping[str, Any], why: str
) -> str:
    """A sentence on what could be a classifier and cannot be used; empty if there is nothing."""
    free = {
        name: tensor
        for name, tensor in free_tensors(state_dict, weights, own).items()
        if not any(own.get(of_model) == tensor.shape for of_model in _endings(name))
    }
    for level in levels_above(weights.prefix):
        groups = modules_at(free, level, weights.prefix).items()
        found = [root for root, tensors in groups if _may_be_head(tensors, weights.prefix)]
        if found:
            return f"{' and '.join(found[:2])} beside the encoder could be one, and {why}"
    return ""


def _may_be_head(tensors: Mapping[str, Tensor], prefix: str) -> bool:
    """Whether a module has as many matrices as a head, and no name of something else."""
    matrices = [
        name
        for name, tensor in tensors.items()
        if "weight" in name and tensor.ndim > 1 and tensor.shape[2:].numel() == 1
    ]
    is_other = any(_no_classifier(name, prefix) for name in tensors)
    return 0 < len(matrices) <= _MOST_MATRICES and not is_other


def _endings(name: str) -> Iterator[str]:
    """`a.b.c` as `a.b.c`, `b.c`, `c`."""
    while name:
        yield name
        name = name.partition(".")[2]


def _is_plausible(head: Head, classes: int | None, prefix: str) -> bool:
    if classes is not None:
        return head.outputs == classes
    return head.outputs > 1 and not _no_classifier(head.path, prefix)


def _no_classifier(name: str, prefix: str) -> str:
    """The word in a name by which it is something else; empty if there is none.

    Words of the encoder's prefix do not count: the head of `ema_model.encoder` is `ema_model.head`.
    """
    words, common = ([word.lower() for word in _WORD.findall(text)] for text in (name, prefix))
    return next((word for word in words if word in _NO_CLASSIFIER and word not in common), "")


def _why_not(head: Head, word: str, classes: int | None) -> str:
    """What lies there and is not taken, and how to have it taken."""
    lies = f"{head} lies beside the encoder"
    if word:
        why, option = f"its name says something else ({word})", f"model.head={head.path}"
    elif classes is not None:
        why = f"has {head.outputs} output{'s' * (head.outputs > 1)} for {classes} classes"
        option = f"model.num_classes={head.outputs}"
    else:
        why, option = "has a single output, as a regression has", f"model.head={head.path}"
    return f"{lies} and {why}: set {option} if it is the classifier"


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
