"""What lies beside an encoder in a checkpoint: modules, and which of them could be a head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from artifactgen.models.heads import Head, Layer
from artifactgen.models.naming import NamedWeights

_MOST_LAYERS = 64


def free_tensors(
    state_dict: Mapping[str, Tensor], weights: NamedWeights, own: Mapping[str, Any]
) -> dict[str, Tensor]:
    """What of a checkpoint is no weight of the model `own`, under its names there."""
    beside = {name: state_dict[name] for name in weights.outside}
    inside = {
        weights.prefix + key: tensor for key, tensor in weights.tensors.items() if key not in own
    }
    return beside | inside


def levels_above(prefix: str) -> Iterator[str]:
    """The prefix of an encoder, and of all that it lies in: `a.b.` as `a.b.`, `a.`, ``."""
    parts = prefix.split(".")[:-1]
    for length in range(len(parts), -1, -1):
        yield "".join(f"{part}." for part in parts[:length])


def modules_at(free: Mapping[str, Tensor], level: str, prefix: str) -> dict[str, dict[str, Tensor]]:
    """What lies right below a level, and is not what the encoder lies in, by module path."""
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in free.items():
        if name.startswith(level):
            root = level + name[len(level) :].partition(".")[0]
            if not (prefix.startswith(f"{root}.") and prefix != level):
                groups.setdefault(root, {})[name] = tensor
    return groups


def heads_at(free: Mapping[str, Tensor], level: str, prefix: str, width: int) -> Iterator[Head]:
    """What lies right below a level and could be fed with the encoder's output."""
    groups = modules_at(free, level, prefix)
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
