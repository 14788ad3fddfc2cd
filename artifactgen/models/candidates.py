"""Which model of timm takes a checkpoint: those that it could be, held against its weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import timm
import torch
from torch import Tensor

from artifactgen.errors import ConfigError
from artifactgen.models.checkpoint import Checkpoint
from artifactgen.models.matching import misfits
from artifactgen.models.recognise import looks_like, resnet_depth, vit_size
from artifactgen.models.timm import Timm

_FAMILIES: Mapping[str, tuple[str, ...]] = {
    r"stages\.\d+\.blocks\.\d+\.mlp\.grn\.": ("convnextv2_*",),
    r"stages\.\d+\.blocks\.\d+\.conv_dw\.": ("convnext_*", "edgenext_*"),
    r"blocks\.0\.0\.conv\.weight": ("tf_efficientnetv2_*", "efficientnetv2_*"),
    r"conv_head\.bias": ("mobilenetv3_*", "tf_mobilenetv3_*"),
    r"conv_stem\.weight": ("efficientnet_b?", "mobilenetv2_*", "efficientnet_*", "mnasnet*"),
    r"layers\.\d+\.blocks\.\d+\.attn\.relative": ("swin_*_patch*", "swin_*"),
    r"denseblock\d": ("densenet*",),
    r"s\d\.b\d+\.se\.": ("regnety_*",),
    r"s\d\.b\d+\.conv1\.": ("regnetx_*", "regnet*"),
    r"stages\.\d+\.blocks\.\d+\.attn\.kv\.": ("pvt_v2_*",),
    r"stages\.\d+\.blocks\.\d+\.norm\d\.": ("resnetv2_*",),
    r"stages\.\d+\.blocks\.\d+\.token_mixer\.": ("caformer_*", "convformer_*", "poolformer*"),
    r"stages\.\d+\.blocks\.\d+\.attn_block\.": ("maxvit_*_tf_224", "maxvit_*", "coatnet*"),
    r"cls_attn_blocks\.": ("xcit_*_p16_224", "xcit_*_p8_224"),
    r"features\.\d+\.weight": ("vgg*",),
    r"Mixed_\d": ("inception_*",),
}
"""Names of timm by what is in the names of weights; of several models that fit, the first."""
_RESNETS = (
    *("resnet{}", "resnext{}_*", "wide_resnet{}_*", "seresnet{}", "seresnext{}_*"),
    *("ecaresnet{}*", "resnet{}?", "resnet{}_*", "res2net{}_*"),
)
_VITS = {
    "attn_pool.": ("vit_{}_patch{}_siglip_*",),
    "norm_pre.": ("vit_{}_patch{}_clip_*",),
    "ls1.": ("vit_{}_patch{}*dinov2", "deit3_{}_patch{}_*"),
    "dist_token": ("deit_{}_distilled_patch{}_*",),
    "rope.": ("eva02_{}_patch{}_*",),
    "": ("vit_{}_patch{}_224", "beit*_{}_patch{}_*", "eva02_{}_patch{}_*", "*_{}_patch{}_*"),
}
"""By what is in the names of its weights beside."""
FITS = "Its weights fit"
_MOST = 60
_MOST_CHANNELS = 16


def fitting(checkpoint: Checkpoint) -> str:
    """A sentence with the options of a model that takes all of the weights; or nothing."""
    tensors = checkpoint.state_dict
    channels = _channels(tensors)
    with torch.device("meta"):  # shapes alone
        names = (name for name in _names(tensors) if _fits(name, channels, checkpoint))
        name = next(names, None)
        if name is None:
            return ""
        quick = name.replace("_clip_", "_clip_quickgelu_")
        alike = timm.list_models([f"*_{name}", quick] if quick != name else f"*_{name}")
        others = [other for other in alike if _fits(other, channels, checkpoint)]
    more = f" model.in_chans={channels}" if channels != 3 else ""
    also = f" {' and '.join(others)} would take them as well, and compute something else."
    advice = f"{FITS} {name}: set model.backbone={name}{more}."
    return advice + (also if others else "")


def _fits(name: str, channels: int, checkpoint: Checkpoint) -> bool:
    try:
        return misfits(Timm(backbone=name, in_chans=channels), checkpoint) == (0, 0)
    except ConfigError:
        return False


def _names(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Names of timm that a checkpoint could be of, the likeliest first."""
    globs = re.findall(r"model\.backbone=(\w+)", looks_like(tensors))
    if depth := resnet_depth(tensors):
        globs += [glob.format(depth) for glob in _RESNETS]
    if vit := vit_size(tensors):
        parts = (globs for part, globs in _VITS.items() if any(part in key for key in tensors))
        globs += [glob.format(*vit) for of_part in parts for glob in of_part]
    for pattern, names in _FAMILIES.items():
        if any(re.search(rf"(?:^|\.){pattern}", key) for key in tensors):
            globs += names
    found = (name for glob in globs for name in timm.list_models(glob))
    yield from list(dict.fromkeys(found))[:_MOST]


def _channels(tensors: Mapping[str, Tensor]) -> int:
    """Of the images that the first convolution takes, as far as it tells."""
    first = next((tensor for tensor in tensors.values() if tensor.ndim == 4), None)
    return 3 if first is None or first.shape[1] > _MOST_CHANNELS else first.shape[1]
