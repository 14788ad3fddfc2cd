"""A classifier that lies beside the encoder: `self.backbone` and `self.head` of a training.

Weights tell linear layers and norms, and their order. Activations and dropout leave no trace. So a
linear layer alone is loaded, and one behind a norm; of two linear layers it is not known what is
between them, until `model.head_layers` says it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

from artifactgen.models.naming import NamedWeights

WEIGHTED = ("Linear", "LayerNorm", "BatchNorm1d")
WEIGHTLESS = (
    *("Dropout", "Identity", "Flatten", "ReLU", "LeakyReLU", "ReLU6", "ELU", "SELU", "GELU"),
    *("SiLU", "Mish", "Tanh", "Sigmoid", "Softplus", "Hardswish"),
)


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
        kinds = (str(next(named)) if kind in WEIGHTED else kind for kind in self.told)
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
            usual = ["ReLU", "Dropout"] if kinds[-1:] == ["Linear"] else ["Dropout"]
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
            places += [(f"{classifier}.{index}", next(weighted))] if kind in WEIGHTED else []
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


def _kinds(head: Head) -> tuple[str, ...]:
    return head.told or tuple(layer.kind for layer in head.layers)


def _is_linear(head: Head) -> bool:
    """Whether it computes what a linear layer does: dropout does nothing once trained."""
    nothing = {"Dropout", "Identity", "Flatten"}
    return [kind for kind in _kinds(head) if kind not in nothing] == ["Linear"]


def _build(head: Head) -> nn.Sequential:
    weighted = iter(head.layers)
    modules = [
        _with_weights(next(weighted)) if kind in WEIGHTED else _without_weights(kind)
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


def _is_below(name: str, modules: set[str]) -> bool:
    return any(name.startswith(module) for module in modules)
