"""Any classification model of torchvision by its name.

https://docs.pytorch.org/vision/stable/models.html
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from torch import nn
from torchvision import models
from torchvision.transforms import InterpolationMode

from artifactgen.errors import ConfigError, did_you_mean
from artifactgen.models.base import crop_pct_of, per_channel
from artifactgen.models.claims import Claim
from artifactgen.models.foreign import RAISED, reason
from artifactgen.models.hooked import HookedFamily, HookedNetwork, hook_up
from artifactgen.types import Framing, Interpolation

if TYPE_CHECKING:
    from artifactgen.models.audit import LoadAudit
    from artifactgen.models.base import Network
    from artifactgen.models.checkpoint import Checkpoint
    from artifactgen.models.stated import Stated

RESERVED_OPTIONS = {
    "weights": "ckpt_path",
    "num_classes": "model.num_classes",
    "image_size": "data.image_size",
    "input_size": "data.image_size",
}
"""Arguments of torchvision's builders that an option of ours stands for."""

INTERPOLATIONS: Mapping[InterpolationMode, Interpolation] = {
    InterpolationMode.BILINEAR: "bilinear",
    InterpolationMode.BICUBIC: "bicubic",
    InterpolationMode.LANCZOS: "lanczos",
    InterpolationMode.NEAREST: "nearest",
}
"""torchvision's words for them, and ours."""
_GEOMETRY = ("kernel_size", "stride", "padding", "dilation")
_QUIET = {"init_weights": False}
"""Of networks whose initialisation is slow: of GoogLeNet and Inception, a warning announces it."""
_AS_TRAINED = {"transform_input": True}
"""Of GoogLeNet and Inception: what torchvision sets with its weights, for images made ready as
theirs are. It leaves no trace in a checkpoint; `options` may say otherwise."""


@dataclass(frozen=True, kw_only=True)
class Torchvision(HookedFamily):
    """A model of torchvision."""

    backbone: str | None = None
    """torchvision's name, such as `resnet18`; None = as stated in the checkpoint."""
    weights: str = "DEFAULT"
    """Which of torchvision's own weights says how images are made ready; they are not loaded."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """More arguments of torchvision's builder, such as `aux_logits`."""

    @property
    def name(self) -> str:
        return self.backbone or "torchvision"

    def build(self) -> HookedNetwork:
        size = self.input_size()
        module = self._create(size)
        if self.in_chans != 3:
            _take_channels(module, self.in_chans)
        network = hook_up(replace(self, image_size=size), module)
        return replace(network, family=self)

    def input_size(self) -> tuple[int, int]:
        if self.image_size is not None:
            return self.image_size
        side = int(self._preset().crop_size[0])
        return side, side

    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """What torchvision's weights are trained with; its average for other channels than RGB."""
        preset = self._preset()
        mean, std = tuple(preset.mean), tuple(preset.std)
        return per_channel(mean, self.in_chans), per_channel(std, self.in_chans)

    def framing(self) -> Framing:
        """What torchvision's weights are evaluated with."""
        preset = self._preset()
        pct = crop_pct_of(int(preset.crop_size[0]), int(preset.resize_size[0]))
        return Framing(pct, "center", INTERPOLATIONS[preset.interpolation])

    def claims(self, stated: Stated) -> tuple[Claim, ...]:
        """Also the name, where one of torchvision is stated."""
        named = [said for said in stated.architectures if said.value in names()]
        first = (Claim("backbone", named[0].value, named[0].where),) if named else ()
        return (*first, *HookedFamily.claims(self, stated))

    def lacks(self, checkpoint: Checkpoint) -> str:
        if self.backbone is not None:
            return ""
        return (
            "model.backbone is not set, and the checkpoint does not state it: which model of "
            "torchvision? Add model.backbone=resnet18, or what was trained."
        )

    def hint(self, audit: LoadAudit, checkpoint: Checkpoint, network: Network) -> str:
        """Another name, or another family by whose names the weights go."""
        from artifactgen.models.recognise import looks_like  # imports timm

        looks = looks_like(checkpoint.state_dict)
        return looks or "Set model.backbone (and model.options) to what was trained."

    def _resolved(self) -> str:
        if self.backbone is None:
            raise ConfigError("model.backbone is not set: which model of torchvision?")
        if self.backbone not in names():
            hint = did_you_mean(self.backbone, names())
            raise ConfigError(
                f"model.backbone={self.backbone}: torchvision has no such model. {hint}"
            )
        return self.backbone

    def _preset(self) -> Any:
        """How images are made ready for torchvision's own weights; nothing is downloaded."""
        of_model = models.get_model_weights(self._resolved())
        if self.weights not in of_model.__members__:
            hint = did_you_mean(self.weights, of_model.__members__)
            raise ConfigError(f"model.weights={self.weights}: {self.name} has no such. {hint}")
        return of_model[self.weights].transforms()

    def _create(self, size: tuple[int, int]) -> nn.Module:
        name = self._resolved()
        for option in self.options:
            if option in RESERVED_OPTIONS:
                instead = RESERVED_OPTIONS[option]
                raise ConfigError(f"model.options.{option} is not free: set {instead} instead.")
        given = dict(self.options)
        if self.num_classes:
            given["num_classes"] = self.num_classes
        last: TypeError | None = None
        for more in _ways(size):
            try:
                return _builder(name, {**more, **given})
            except TypeError as error:
                last = error
                if not any(f"'{argument}'" in str(error) for argument in more):
                    break
            except RAISED as error:
                raise self._refuse(given, error, size) from error
        assert last is not None
        raise self._refuse(given, last, size) from last

    def _refuse(
        self, given: Mapping[str, Any], error: Exception, size: tuple[int, int]
    ) -> ConfigError:
        options = ", ".join(f"{key}={value}" for key, value in given.items())
        return ConfigError(
            f"model.backbone={self.name}: torchvision cannot build it with {options or 'defaults'} "
            f"for images of {size[0]} × {size[1]} pixels ({reason(error)})."
        )


def names() -> list[str]:
    """Every classification model of torchvision."""
    found: list[str] = models.list_models(module=models)
    return found


def _ways(size: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """Arguments to try in turn: most models are not told the size of images."""
    yield {"image_size": size[0] if size[0] == size[1] else size}
    yield {"input_size": size}
    yield {**_QUIET, **_AS_TRAINED}
    yield dict(_QUIET)
    yield {}


def _builder(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        model: nn.Module = models.get_model(name, weights=None, **arguments)
    return model


def _take_channels(module: nn.Module, channels: int) -> None:
    """The first convolution for as many channels as images have."""
    path, conv = next((p, m) for p, m in module.named_modules() if isinstance(m, nn.Conv2d))
    arguments: dict[str, Any] = {name: getattr(conv, name) for name in _GEOMETRY}
    has_bias = conv.bias is not None
    made = nn.Conv2d(channels, conv.out_channels, **arguments, bias=has_bias)
    module.set_submodule(path, made)
