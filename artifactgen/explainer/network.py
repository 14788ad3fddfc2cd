"""A model in memory as the rest of the program takes models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from artifactgen.errors import ConfigError
from artifactgen.introspect.grid import require_layer
from artifactgen.models.base import Family, Network, Traits
from artifactgen.models.timm import Timm, as_network, pretrained_cfg


@dataclass(frozen=True, kw_only=True)
class InMemory(Family):
    """A model that nobody builds: it is there."""

    called: str

    @property
    def name(self) -> str:
        return self.called

    def build(self) -> Network:
        raise ConfigError(f"{self.called} is in memory: it is not built.")

    def input_size(self) -> tuple[int, int]:
        assert self.image_size is not None
        return self.image_size


@dataclass(frozen=True, slots=True)
class HookedNetwork(Network):
    """Any module that takes images and gives logits."""

    def forward(self, x_BCHW: Tensor, *, classify: bool) -> tuple[Any, Tensor | None]:
        arrived: list[Tensor] = []
        layer = self.module.get_submodule(self.classifiers[0])
        hook = layer.register_forward_pre_hook(lambda _, inputs: arrived.append(inputs[0]))
        try:
            logits_BK = _logits(self.module(x_BCHW))
        finally:
            hook.remove()
        return arrived[-1], logits_BK if classify else None

    def embed(self, features: Any) -> Tensor:
        embedding: Tensor = features.flatten(1)
        return embedding


def bare(model: nn.Module) -> nn.Module:
    """A model without what only surrounds it: `torch.compile`, `DataParallel` and its like."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return bare(model.module)
    compiled = getattr(model, "_orig_mod", None)
    return bare(compiled) if isinstance(compiled, nn.Module) else model


def network_of(model: nn.Module, x_BCHW: Tensor, *, classifier: str | None) -> Network:
    """The model, for images like these.

    Args:
        model: in eval mode, its weights without gradients.
        x_BCHW: images, on its device.
        classifier: module path of the classifier; None = found.

    Raises:
        ConfigError: no classifier is found, or there is none at that path.
    """
    channels, size = x_BCHW.shape[1], (x_BCHW.shape[2], x_BCHW.shape[3])
    if classifier is not None:
        require_layer(model, classifier, option="classifier")
    if is_of_timm(model) and classifier is None:
        name = pretrained_cfg(model)["architecture"]
        return as_network(model, Timm(backbone=name, in_chans=channels, image_size=size))
    family = InMemory(called=type(model).__name__, in_chans=channels, image_size=size)
    path = classifier or _find_classifier(model, x_BCHW)
    return HookedNetwork(family, model, _traits(model), (path,))


def is_of_timm(model: nn.Module) -> bool:
    """Whether timm built it."""
    halves = hasattr(model, "forward_features") and hasattr(model, "forward_head")
    return halves and "architecture" in (getattr(model, "pretrained_cfg", None) or {})


def _traits(model: nn.Module) -> Traits:
    names = {path.rpartition(".")[2] for path, _ in model.named_parameters()}
    return Traits(has_class_token=bool(names & {"cls_token", "class_token", "class_embedding"}))


def _logits(output: Any) -> Tensor:
    logits = getattr(output, "logits", output)
    assert isinstance(logits, Tensor), type(output)
    return logits


def _find_classifier(model: nn.Module, x_BCHW: Tensor) -> str:
    outputs: dict[str, Tensor] = {}
    linear = {p: m for p, m in model.named_modules() if isinstance(m, nn.Linear)}
    hooks = [
        m.register_forward_hook(lambda _m, _i, output, path=path: outputs.update({path: output}))
        for path, m in linear.items()
    ]
    try:
        with torch.no_grad():
            logits = _logits(model(x_BCHW[:1]))
    finally:
        for hook in hooks:
            hook.remove()
    found = [path for path, output in outputs.items() if output is logits]
    if not found:
        raise ConfigError(
            f"The classifier of {type(model).__name__} is not found. Give classifier=, the module "
            f"path of the layer that gives the logits: {', '.join(linear)}?"
        )
    return found[-1]


def stated_normalization(
    model: nn.Module,
) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """(mean, std) that the model states for pixels in [0, 1]; None of each where it does not."""
    if not is_of_timm(model):
        return None, None
    cfg = pretrained_cfg(model)
    return tuple(cfg["mean"]), tuple(cfg["std"])


def stated_classes(model: nn.Module) -> tuple[str, ...] | None:
    """Names of the outputs, by their number, where the model has them as transformers' do."""
    names = getattr(getattr(model, "config", None), "id2label", None)
    if not names or set(names) != set(range(len(names))):
        return None
    return tuple(str(names[index]) for index in range(len(names)))
