"""Any model of timm by its name, with the few settings that a checkpoint cannot tell.

https://huggingface.co/docs/timm
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self, cast

import timm
from torch import Tensor, nn

from artifactgen.errors import ConfigError
from artifactgen.models.base import Family, Network, Traits, per_channel
from artifactgen.models.timm_build import build, resolve_backbone
from artifactgen.types import Framing

if TYPE_CHECKING:
    from artifactgen.models.audit import LoadAudit, Mismatch
    from artifactgen.models.checkpoint import Checkpoint
    from artifactgen.models.claims import Claim
    from artifactgen.models.naming import NamedWeights
    from artifactgen.models.stated import Stated

_POOLING_PATCHES = ("avg", "avgmax", "max", "catavgmax")

_NOT_OVER_POSITIONS = frozenset(
    ["XCA", "CrossCovarianceAttn", "ChannelAttention", "HSMSSD", "LinearSelfAttention"]
)
"""Layers whose softmax runs over channels, or has no query: a state-space model's states, the
context scores of MobileViTv2."""


@dataclass(frozen=True, kw_only=True)
class Timm(Family):
    """A model of timm."""

    backbone: str | None = None
    """Any timm name; `vit_base_patch16` stands for `vit_base_patch16_224`; None = as stated in the
    checkpoint."""
    global_pool: str | None = None
    """timm's name of the pooling before the head; None = as the checkpoint was trained."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """More arguments of `timm.create_model`, such as `patch_size` or `depth`."""

    @property
    def name(self) -> str:
        return self.backbone or "timm"

    def build(self) -> TimmNetwork:
        resolved = replace(self, backbone=self._resolved())
        return as_network(build(resolved), resolved)

    def input_size(self) -> tuple[int, int]:
        if self.image_size is not None:
            return self.image_size
        _, height, width = self._pretrained_cfg().input_size
        return height, width

    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """What timm states for RGB; its average for another number of channels."""
        cfg = self._pretrained_cfg()
        return per_channel(cfg.mean, self.in_chans), per_channel(cfg.std, self.in_chans)

    def framing(self) -> Framing:
        """What timm's evaluation does for this model; its border has the mean's colour."""
        cfg = self._pretrained_cfg()
        return Framing(cfg.crop_pct, cfg.crop_mode, cfg.interpolation, self.normalization()[0])

    def claims(self, stated: Stated) -> tuple[Claim, ...]:
        from artifactgen.models.timm_stated import claims  # only for a checkpoint that states any

        return (*claims(self, stated), *Family.claims(self, stated))

    def is_described_by(self, config: Stated, own: Stated) -> bool:
        from artifactgen.models.timm_stated import is_of  # only for a config that there is

        return is_of(self.backbone, config, own)

    def lacks(self, checkpoint: Checkpoint) -> str:
        if self.backbone is not None:
            return ""
        from artifactgen.models.hints import looks
        from artifactgen.models.stated import read_for_advice

        return (
            "model.backbone is not set, and the checkpoint does not state it.\n"
            f"{looks(checkpoint, read_for_advice(checkpoint))}"
        )

    def decide(self, draft: Network, weights: NamedWeights) -> Self:
        pool = self.global_pool or _trained_pool(draft.module, weights)
        # Without arguments, `super()` would not know a class that dataclass has made anew.
        return replace(Family.decide(self, draft, weights), global_pool=pool)

    def trained_size(self, draft: Network, weights: NamedWeights) -> tuple[int, int] | None:
        from artifactgen.models.timm_adapt import trained_size

        return trained_size(draft, weights.tensors)

    def adapted(
        self, network: Network, tensors: Mapping[str, Tensor], wrong: tuple[Mismatch, ...]
    ) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
        from artifactgen.models.timm_adapt import adapted  # only for weights of another shape

        return adapted(self, network, tensors, wrong)

    def beside_encoder(self, network: Network) -> frozenset[str]:
        """Also one of a ViT's two last norms, if the user has said by the pooling which is used.

        Some trainings save both.
        """
        norms = {"norm", "fc_norm"} if self.global_pool else set()
        return Family.beside_encoder(self, network) | norms

    def hint(self, audit: LoadAudit, checkpoint: Checkpoint, network: Network) -> str:
        from artifactgen.models.hints import hint  # only for a checkpoint that does not fit

        return hint(audit, checkpoint, network.module, options=self.options)

    def _pretrained_cfg(self) -> Any:
        return timm.get_pretrained_cfg(self._resolved())

    def _resolved(self) -> str:
        if self.backbone is None:
            raise ConfigError("model.backbone is not set: which architecture of timm?")
        return resolve_backbone(self.backbone)


@dataclass(frozen=True, slots=True)
class TimmNetwork(Network):
    """A model of timm, by the two halves that every one of them has."""

    def forward(self, x_BCHW: Tensor, *, classify: bool) -> tuple[Any, Tensor | None]:
        halves: Any = self.module
        features = halves.forward_features(x_BCHW)
        return features, _only_tensor(halves.forward_head(features)) if classify else None

    def embed(self, features: Any) -> Tensor:
        halves: Any = self.module
        return _only_tensor(halves.forward_head(features, pre_logits=True))


def as_network(module: nn.Module, family: Timm | None = None) -> TimmNetwork:
    """A model of timm that is there already."""
    family = family or Timm(backbone=pretrained_cfg(module)["architecture"])
    return TimmNetwork(family, module, traits_of(module), classifier_paths(module))


def _only_tensor(output: Any) -> Tensor:
    """What a head gives, where an architecture wraps it."""
    while isinstance(output, (tuple, list)) and len(output) == 1:
        output = output[0]
    assert isinstance(output, Tensor), type(output)
    return output


def pretrained_cfg(model: nn.Module) -> Mapping[str, Any]:
    """What timm says of a model: `architecture`, `classifier`, `first_conv`, `mean` and more."""
    return cast(Mapping[str, Any], model.pretrained_cfg)


def classifier_paths(module: nn.Module) -> tuple[str, ...]:
    """Where classifiers of this architecture are, built or not: in a distilled one, two."""
    named = pretrained_cfg(module).get("classifier")
    return (named,) if isinstance(named, str) else tuple(named or ())


def traits_of(module: Any) -> Traits:
    """What timm's models state about themselves, by its own conventions."""
    prefix_tokens = getattr(module, "num_prefix_tokens", None)
    blocks = getattr(module, "blocks", None)
    stages = getattr(module, "feature_info", None)
    names = (name for name in dir(module) if name.startswith("cls_token"))
    return Traits(
        prefix_tokens=None if prefix_tokens is None else int(prefix_tokens),
        has_class_token=any(getattr(module, name) is not None for name in names),
        pools_patches=getattr(module, "global_pool", None) in _POOLING_PATCHES,
        channels_last=getattr(module, "output_fmt", "NCHW") == "NHWC",
        patch_grid=_pair(getattr(getattr(module, "patch_embed", None), "grid_size", None)),
        mask_units=_pair(getattr(module, "mask_spatial_shape", None)),  # Hiera
        last_block=f"blocks.{len(blocks) - 1}"
        if isinstance(blocks, nn.Sequential | nn.ModuleList)
        else None,
        last_stage=str(stages[-1]["module"]) if stages else None,
        not_over_positions=_NOT_OVER_POSITIONS,
    )


def _pair(size: Any) -> tuple[int, int] | None:
    return None if size is None else (int(size[0]), int(size[1]))


def _trained_pool(draft: nn.Module, weights: NamedWeights) -> str | None:
    """`avg` for a ViT that normalises after the pooling, as in MAE's fine-tuning.

    https://github.com/facebookresearch/mae/blob/main/models_vit.py
    """
    normalises_after = "fc_norm.weight" in weights.tensors and "norm.weight" not in weights.tensors
    if normalises_after and hasattr(draft, "fc_norm"):
        return "avg"
    own = getattr(draft, "global_pool", None)
    return own if isinstance(own, str) else None
