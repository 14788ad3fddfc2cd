"""A model in memory as the rest of the program takes models."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from artifactgen.models.base import Family, Network
from artifactgen.models.hooked import HookedNetwork, hook_up, logits_of
from artifactgen.models.outline import outline
from artifactgen.models.timm import Timm, as_network, pretrained_cfg

NO_CLASSIFIER = "none"


@dataclass(frozen=True, kw_only=True)
class InMemory(Family):
    """A model that nobody builds: it is there."""

    called: str

    @property
    def name(self) -> str:
        return self.called

    def build(self) -> Network:
        raise NotImplementedError(f"{self.called} is in memory")

    def input_size(self) -> tuple[int, int]:
        assert self.image_size is not None
        return self.image_size


def bare(model: nn.Module) -> nn.Module:
    """A model without what only surrounds it: `torch.compile`, `DataParallel` and its like."""
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return bare(model.module)
    compiled = getattr(model, "_orig_mod", None)
    return bare(compiled) if isinstance(compiled, nn.Module) else model


def network_of(model: nn.Module, x_BCHW: Tensor, *, classifier: str | None) -> Network:
    """The model, for images like these.

    Args:
        model: in eval mode and float32, its weights without gradients.
        x_BCHW: images, on its device.
        classifier: module path of the classifier; None = found; `none`: there is none, and what
            the model gives is the embedding.

    Raises:
        ConfigError: no classifier is found, or there is none at that path.
    """
    channels, size = x_BCHW.shape[1], (x_BCHW.shape[2], x_BCHW.shape[3])
    if is_of_timm(model) and classifier is None:
        name = pretrained_cfg(model)["architecture"]
        return as_network(model, Timm(backbone=name, in_chans=channels, image_size=size))
    family = InMemory(called=type(model).__name__, in_chans=channels, image_size=size)
    if classifier == NO_CLASSIFIER:
        return _encoder(family, model, x_BCHW[:1])
    return hook_up(family, model, classifiers=(classifier,) if classifier else ())


def _encoder(family: Family, model: nn.Module, x_BCHW: Tensor) -> Network:
    """Without a look for a classifier: one that is found would be taken out of the model."""
    found = outline(lambda images: logits_of(model(images)), model, x_BCHW)
    return HookedNetwork(family, model, found.traits, positions_at=found.positions_at)


def is_of_timm(model: nn.Module) -> bool:
    """Whether timm built it."""
    halves = hasattr(model, "forward_features") and hasattr(model, "forward_head")
    return halves and "architecture" in (getattr(model, "pretrained_cfg", None) or {})


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
