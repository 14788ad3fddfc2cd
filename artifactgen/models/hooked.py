"""Any network that takes images and gives logits, looked into by hooks.

The embedding is what arrives at the classifier, the logits are what the network gives. What else
there is to know of it is found by an image that goes through it, see `outline.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from artifactgen.errors import ConfigError, did_you_mean
from artifactgen.models.arriving import keep_input, linear_layers, one_vector
from artifactgen.models.base import Family, Network, head_classes
from artifactgen.models.foreign import RAISED, reason
from artifactgen.models.naming import NamedWeights
from artifactgen.models.outline import outline


class Arrived(NamedTuple):
    """What a pass through such a network is about."""

    vector_BD: Tensor
    """What arrives at the classifier; of several, the average."""
    positions: Tensor | None
    """The last output with positions of the image, as the layer gave it."""


@dataclass(frozen=True, slots=True)
class HookedNetwork(Network):
    """Any `nn.Module` that takes images and gives logits."""

    outputs: int = 0
    """Of the network, as it is built."""
    positions_at: str | None = None
    """Module path of the last layer of which positions of the image reach the classifier."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Of a call, beside the images."""

    def forward(self, x_BCHW: Tensor, *, classify: bool) -> tuple[Arrived, Tensor | None]:
        arrived: dict[str, Tensor] = {}
        positions: list[Tensor] = []

        def keep(_module: nn.Module, _args: object, output: Tensor) -> None:
            positions.append(output.clone())  # an in-place activation behind it would change it

        with ExitStack() as stack:
            for path in self.classifiers:
                stack.callback(keep_input(self.module, path, arrived).remove)
            if self.positions_at is not None:
                layer = self.module.get_submodule(self.positions_at)
                stack.callback(layer.register_forward_hook(keep).remove)
            logits_BK = logits_of(self.module(x_BCHW, **self.arguments))
        vector_BD = self._vector(arrived) if self.classifiers else logits_BK
        return Arrived(vector_BD, positions[-1] if positions else None), (
            logits_BK if classify else None
        )

    def embed(self, features: Arrived) -> Tensor:
        return features.vector_BD

    def positions(self, features: Arrived) -> Tensor | None:
        return features.positions

    @property
    def hooked(self) -> tuple[str, ...]:
        return (*self.classifiers, *([self.positions_at] if self.positions_at else []))

    def _vector(self, arrived: Mapping[str, Tensor]) -> Tensor:
        for path in self.classifiers:
            if path not in arrived:
                raise ConfigError(
                    f"model.classifier={path}: {type(self.module).__name__} does not call it."
                )
        layers = [(self.module.get_submodule(path), arrived[path]) for path in self.classifiers]
        vectors = [one_vector(tensor, layer) for layer, tensor in layers]
        return vectors[0] if len(vectors) == 1 else torch.stack(vectors).mean(0)


@dataclass(frozen=True, kw_only=True)
class HookedFamily(Family):
    """A family of such networks."""

    looks_inside: ClassVar[bool] = True

    def decide(self, draft: Network, weights: NamedWeights) -> Self:
        assert isinstance(draft, HookedNetwork)
        classes = head_classes(draft, weights)
        if not classes and _holds_all(draft, weights):
            classes = draft.outputs  # a classifier of several layers, named by the user
        return replace(self, num_classes=0 if self.num_classes == 0 else classes)

    def beside_encoder(self, network: Network) -> frozenset[str]:
        return frozenset(network.classifiers)


def _holds_all(draft: Network, weights: NamedWeights) -> bool:
    """Whether a checkpoint has all of the classifier's weights."""
    names = [
        name
        for name in draft.module.state_dict()
        if any(name.startswith(f"{path}.") for path in draft.classifiers)
    ]
    return bool(names) and all(name in weights.tensors for name in names)


def hook_up(
    family: Family,
    module: nn.Module,
    *,
    classifiers: Sequence[str] = (),
    arguments: Mapping[str, Any] | None = None,
) -> HookedNetwork:
    """A network made ready: in eval mode and float32, its classifier of the size that is asked for.

    Args:
        family: with `image_size` set.
        module: with weights, be they random.
        classifiers: module paths, where they are known; else they are found.
        arguments: of a call, beside the images.

    Raises:
        ConfigError: it takes no such images, or gives no logits, or it cannot be told which of its
            layers is the classifier.
    """
    assert family.image_size is not None
    module = _evaluating(module.float().requires_grad_(False))
    network = HookedNetwork(family, module, arguments=arguments or {})
    x_BCHW = torch.randn(
        *(1, family.in_chans, *family.image_size),
        generator=torch.Generator().manual_seed(0),
        device="cpu",  # whatever the default is: that of the generator
    ).to(next(module.parameters(), torch.zeros(0)).device)

    def call(x_BCHW: Tensor) -> Tensor:
        return logits_of(module(x_BCHW, **network.arguments))

    _require_layers(module, classifiers)
    try:
        found = outline(call, module, x_BCHW, classifiers=classifiers)
    except RAISED as error:
        raise _takes_no_image(family, module, error) from error
    if not found.classifiers and family.num_classes != 0:
        raise _not_found(module)
    _set_outputs(module, found.classifiers, family.num_classes)
    return replace(
        network,
        traits=found.traits,
        classifiers=found.classifiers,
        outputs=found.outputs if family.num_classes is None else family.num_classes,
        positions_at=found.positions_at,
    )


def _evaluating(module: nn.Module) -> nn.Module:
    """In eval mode by each module's flag.

    `eval()` may do more, such as to merge adapters into weights: here they are not loaded yet, or
    somebody else's.
    """
    for part in module.modules():
        part.training = False
    return module


def logits_of(output: Any) -> Tensor:
    """Logits (B, K) in whatever a network gives.

    Raises:
        TypeError: there are none.
    """
    if isinstance(output, tuple | list) and not hasattr(output, "logits"):
        of_ours = (item for item in output if isinstance(item, Tensor | Mapping))
        output = next(of_ours, output)
    if isinstance(output, Mapping) and "logits" in output:
        output = output["logits"]
    output = getattr(output, "logits", output)
    if not isinstance(output, Tensor):
        raise TypeError(f"it gives {type(output).__name__}, and no logits")
    if output.ndim != 2:
        raise TypeError(f"it gives {tuple(output.shape)} for an image, and not one row of logits")
    return output


def _set_outputs(module: nn.Module, classifiers: Sequence[str], classes: int | None) -> None:
    """Give the classifier as many outputs as are asked for; without any, it lets all pass."""
    if classes is None:
        return
    for path in classifiers:
        layer = module.get_submodule(path)
        if classes == 0:
            module.set_submodule(path, nn.Identity())
        elif isinstance(layer, nn.Linear) and layer.out_features != classes:
            made = nn.Linear(layer.in_features, classes, bias=layer.bias is not None)
            module.set_submodule(path, _evaluating(made.requires_grad_(False)))
        elif isinstance(layer, nn.Conv2d) and layer.out_channels != classes:
            conv = nn.Conv2d(layer.in_channels, classes, 1, bias=layer.bias is not None)
            module.set_submodule(path, _evaluating(conv.requires_grad_(False)))


def _require_layers(module: nn.Module, classifiers: Sequence[str]) -> None:
    known = dict(module.named_modules())
    for path in classifiers:
        if path not in known:
            hint = did_you_mean(path, linear_layers(module))
            name = type(module).__name__
            raise ConfigError(f"model.classifier={path}: {name} has no such module. {hint}")


def _not_found(module: nn.Module) -> ConfigError:
    could = ", ".join(linear_layers(module)[-6:]) or "none"
    return ConfigError(
        f"{type(module).__name__}: it cannot be told which layer is the classifier: none of its "
        "linear layers gives what the network gives.\n"
        f"Set model.classifier to one of its modules (its last linear layers: {could}), or "
        "model.num_classes=0 to take what it gives as the embedding."
    )


def _takes_no_image(family: Family, module: nn.Module, error: Exception) -> ConfigError:
    size = family.image_size or (0, 0)
    first = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    advice = "Set data.image_size and model.in_chans as in training."
    if first is not None and first.in_channels != family.in_chans:
        advice = f"Its first convolution takes {first.in_channels}: set model.in_chans."
    return ConfigError(
        f"{type(module).__name__} cannot take an image of {family.in_chans} channels and "
        f"{size[0]} × {size[1]} pixels ({reason(error)}). {advice}"
    )
