"""What to change about a checkpoint that does not fit a model of timm."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import timm
from torch import Tensor, nn

from artifactgen.models.audit import LoadAudit
from artifactgen.models.checkpoint import Checkpoint
from artifactgen.models.timm import pretrained_cfg

_VIT_SIZES = {
    (192, 12): "tiny",
    (384, 12): "small",
    (768, 12): "base",
    (1024, 24): "large",
    (1280, 32): "huge",
    (1408, 40): "giant",
    (1536, 40): "giant",
    (1664, 48): "gigantic",
}
"""Names by (width, blocks), as timm uses them."""

_RESNETS: Mapping[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}
"""Names by blocks of the four layers, and whether they are bottlenecks."""


def hint(audit: LoadAudit, checkpoint: Checkpoint, model: nn.Module) -> str:
    """A sentence on what to change, from the tensors of the checkpoint; always says something."""
    wrong = {name: shape for name, shape, _ in audit.mismatched}
    if not (audit.missing or audit.surplus):
        found = _other_channels(wrong, model) or _other_size(wrong, model)
        if found:
            return found
    pooling = _other_pooling(audit)
    if pooling:
        return pooling
    return (
        _trained_as(checkpoint.meta, pretrained_cfg(model)["architecture"])
        or _looks_like_vit(checkpoint.state_dict)
        or _looks_like_resnet(checkpoint.state_dict)
        or "Set model.backbone (and model.options) to what the checkpoint was trained with."
    )


def _other_channels(wrong: Mapping[str, tuple[int, ...]], model: nn.Module) -> str:
    first = pretrained_cfg(model).get("first_conv")
    names = [first] if isinstance(first, str) else list(first or ())
    shapes = [wrong[f"{name}.weight"] for name in names if f"{name}.weight" in wrong]
    if not shapes or len(shapes) < len(wrong) or len(shapes[0]) != 4:
        return ""
    channels = shapes[0][1]
    return f"It was trained on images of {channels} channel(s): try model.in_chans={channels}."


def _other_size(wrong: Mapping[str, tuple[int, ...]], model: nn.Module) -> str:
    """For position embeddings (1, N, D) of another grid, the image size that has this grid."""
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if set(wrong) != {"pos_embed"} or patch is None or len(wrong["pos_embed"]) != 3:
        return ""
    embeds_prefix = not getattr(model, "no_embed_class", False)
    prefix_tokens = getattr(model, "num_prefix_tokens", 0) if embeds_prefix else 0
    patches = wrong["pos_embed"][1] - prefix_tokens
    side = math.isqrt(max(patches, 0))
    if side == 0 or side * side != patches:
        return f"It has positions for {patches} patches: set data.image_size as in training."
    size = f"[{side * patch[0]},{side * patch[1]}]"
    return f"It has positions for {side} x {side} patches: try data.image_size={size}."


def _other_pooling(audit: LoadAudit) -> str:
    differing = {name.partition(".")[0] for name in (*audit.surplus, *audit.missing)}
    if audit.mismatched or not differing or not differing <= {"norm", "fc_norm"}:
        return ""
    return (
        "Only the last norm differs, so another pooling was trained: leave model.global_pool "
        "unset, or set model.global_pool=avg for fc_norm, model.global_pool=token for norm."
    )


def _trained_as(meta: Mapping[str, Any], backbone: str) -> str:
    arch = meta.get("arch")
    if not isinstance(arch, str) or arch == backbone or not timm.is_model(arch):
        return ""
    return f"The checkpoint says that it is a {arch}: try model.backbone={arch}."


def _looks_like_vit(tensors: Mapping[str, Tensor]) -> str:
    proj = _ending(tensors, "patch_embed.proj.weight")
    blocks = _count(tensors, r"(?:^|\.)blocks\.(?:\d+\.)?(\d+)\.norm1\.weight$")
    if proj is None or proj.ndim != 4 or not blocks:
        return ""
    width, _, patch, _ = proj.shape
    looks = f"It looks like a ViT with width {width}, {blocks} blocks, patch {patch}"
    name = _vit_name(tensors, width, blocks, patch)
    return f"{looks}: try model.backbone={name}." if name else f"{looks}; set model.backbone to it."


def _vit_name(tensors: Mapping[str, Tensor], width: int, blocks: int, patch: int) -> str | None:
    size = _VIT_SIZES.get((width, blocks))
    if size is None:
        return None
    stem = f"vit_{size}_patch{patch}"
    dinov2 = _ending(tensors, "blocks.0.ls1.gamma") is not None
    registers = any(_ending(tensors, name) is not None for name in ("reg_token", "register_tokens"))
    special = [f"{stem}_reg4_dinov2" if registers else f"{stem}_dinov2"] if dinov2 else []
    known = [*special, f"{stem}_224", *timm.list_models(f"{stem}_*")]
    return next((name for name in known if timm.is_model(name)), None)


def _looks_like_resnet(tensors: Mapping[str, Tensor]) -> str:
    layers = [_count(tensors, rf"(?:^|\.)layer{i}\.(\d+)\.conv1\.weight$") for i in (1, 2, 3, 4)]
    if not all(layers):
        return ""
    bottleneck = _ending(tensors, "layer1.0.conv3.weight") is not None
    name = _RESNETS.get((tuple(layers), bottleneck))
    looks = f"It looks like a ResNet with {layers} blocks"
    return f"{looks}: try model.backbone={name}." if name else f"{looks}; set model.backbone to it."


def _ending(tensors: Mapping[str, Tensor], name: str) -> Tensor | None:
    """The first tensor called `name`, below whatever prefix."""
    return next((t for key, t in tensors.items() if f".{key}".endswith(f".{name}")), None)


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    """Number of different indices that the pattern finds in the names."""
    return len({match[1] for key in tensors if (match := re.search(pattern, key))})
