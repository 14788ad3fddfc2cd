"""A classifier that lies beside the encoder: `self.backbone` and `self.head` of a training.

Weights tell linear layers and norms, and their order. Activations and dropout leave no trace. So a
linear layer alone is loaded, and one behind a norm; of two linear layers it is not known what is
between them, until `model.head_layers` says it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from artifactgen.errors import CheckpointError, ConfigError, did_you_mean
from artifactgen.models.naming import NamedWeights

_WEIGHTED = ("Linear", "LayerNorm", "BatchNorm1d")
_WEIGHTLESS = (
    *("Dropout", "Identity", "Flatten", "ReLU", "LeakyReLU", "ReLU6", "ELU", "SELU", "GELU"),
    *("SiLU", "Mish", "Tanh", "Sigmoid", "Softplus", "Hardswish"),
)
_MOST_LAYERS = 64
_OF_PRETRAINING = re.compile(r"decode|proj|predict|proto|mask|embed|queue|momentum|ema|aux")
"""In names of what is as wide as a classifier's input and is none."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer with weights, as far as they tell it."""

    path: str
    """In the checkpoint, such as `head.1`."""
    kind: str
    tensors: Mapping[str, Tensor]

    @property
    def index(self) -> int | None:
        """Its place in a `nn.Sequential`."""
        last = self.path.rpartition(".")[2]
        return int(last) if last.isdecimal() else None

    @property
    def sizes(self) -> tuple[int, int]:
        """Width of what goes in, and of what comes out."""
        shape = self.tensors["weight"].shape
        return shape[-1], shape[0]

    def __str__(self) -> str:
        entering, leaving = self.sizes
        return f"{self.kind} {entering} → {leaving}" if self.kind == "Linear" else self.kind


@dataclass(frozen=True, slots=True)
class Head:
    """What could be the classifier: layers that fit on each other, the last of them linear."""

    path: str
    """In the checkpoint, such as `head` or `module.head`."""
    layers: tuple[Layer, ...]
    told: tuple[str, ...] = ()
    """Kinds of all its layers in their order, where they are known; else by the weights."""

    @property
    def outputs(self) -> int:
        return self.layers[-1].sizes[1]

    @property
    def is_clear(self) -> bool:
        """Whether the weights tell what it computes: one linear layer, if any right behind a norm.

        What is before the first of its layers is taken for dropout.
        """
        if self.told or len(self.layers) == 1:
            return True
        first, second = (layer.index for layer in self.layers[:2])
        adjacent = first is not None and second == first + 1
        is_norm = self.layers[0].kind != "Linear"
        return adjacent and is_norm and len(self.layers) == 2

    def __str__(self) -> str:
        """`head (LayerNorm, Linear 64 → 4)`."""
        if not self.told:
            return f"{self.path} ({', '.join(map(str, self.layers))})"
        named = iter(self.layers)
        kinds = (str(next(named)) if kind in _WEIGHTED else kind for kind in self.told)
        return f"{self.path} ({', '.join(kinds)})"

    @property
    def assumed(self) -> str:
        """What of it is no more than likely."""
        first = self.layers[0].index
        notes = ["dropout before it"] if first and not self.told else []
        norms = {layer.kind for layer in self.layers} - {"Linear"}
        notes += [f"eps {_EPS:g} of its norm"] if norms else []
        return ", ".join(notes)

    def example(self) -> str:
        """How `model.head_layers` might say it, the unknown filled with what is usual."""
        kinds: list[str] = []
        for layer in self.layers:
            gap = bool(kinds) if layer.index is None else layer.index - len(kinds)
            usual = ["ReLU", "Dropout"] if kinds else ["Dropout"]
            kinds += [usual[min(place, len(usual) - 1)] for place in range(gap)]
            kinds.append(layer.kind)
        return f"model.head_layers=[{','.join(kinds)}]"


_EPS = 1e-5
"""torch's default for norms. It leaves no trace in weights."""


def with_head(
    weights: NamedWeights, head: Head, classifier: str
) -> tuple[NamedWeights, nn.Module | None]:
    """The weights with a head's under the names of the model's classifier, and its module.

    The module stands for the classifier that the model has; None where that is a linear layer, and
    so is the head.
    """
    module = None if _is_linear(head) else _build(head)
    weighted = iter(head.layers)
    places: list[tuple[str, Layer]] = []
    if module is None:
        places = [(classifier, next(weighted))]
    else:
        for index, kind in enumerate(_kinds(head)):
            places += [(f"{classifier}.{index}", next(weighted))] if kind in _WEIGHTED else []
    named = {
        f"{place}.{key}": tensor for place, layer in places for key, tensor in layer.tensors.items()
    }
    if module is None and f"{classifier}.bias" not in named:
        named[f"{classifier}.bias"] = named[f"{classifier}.weight"].new_zeros(head.outputs)
    taken = {f"{layer.path}." for layer in head.layers}
    rest = {
        name: tensor
        for name, tensor in weights.tensors.items()
        if not _is_below(weights.prefix + name, taken)
    }
    outside = tuple(name for name in weights.outside if not _is_below(name, taken))
    return replace(weights, tensors={**rest, **named}, outside=outside, head=head.outputs), module


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
        if kind not in (*_WEIGHTED, *_WEIGHTLESS):
            hint = did_you_mean(kind, (*_WEIGHTED, *_WEIGHTLESS))
            raise ConfigError(f"model.head_layers: {kind} is no layer that is known here. {hint}")
    weighted = [(index, kind) for index, kind in enumerate(kinds) if kind in _WEIGHTED]
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


def _kinds(head: Head) -> tuple[str, ...]:
    return head.told or tuple(layer.kind for layer in head.layers)


def _is_linear(head: Head) -> bool:
    """Whether it computes what a linear layer does: dropout does nothing once trained."""
    nothing = {"Dropout", "Identity", "Flatten"}
    return [kind for kind in _kinds(head) if kind not in nothing] == ["Linear"]


def _build(head: Head) -> nn.Sequential:
    weighted = iter(head.layers)
    modules = [
        _with_weights(next(weighted)) if kind in _WEIGHTED else _without_weights(kind)
        for kind in _kinds(head)
    ]
    return nn.Sequential(*modules).eval().requires_grad_(requires_grad=False)


def _with_weights(layer: Layer) -> nn.Module:
    entering, leaving = layer.sizes
    if layer.kind == "Linear":
        return nn.Linear(entering, leaving, bias="bias" in layer.tensors)
    if layer.kind == "BatchNorm1d":
        return nn.BatchNorm1d(leaving, eps=_EPS, affine="bias" in layer.tensors)
    return nn.LayerNorm(leaving, eps=_EPS)


def _without_weights(kind: str) -> nn.Module:
    if kind in ("Dropout", "Flatten"):  # of vectors, without training
        return nn.Identity()
    module: nn.Module = getattr(nn, kind)()
    return module


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


def _is_below(name: str, modules: set[str]) -> bool:
    return any(name.startswith(module) for module in modules)
