"""What a checkpoint looks like, by names and shapes of its tensors, and how to ask for that.

Sentences for a person; nothing is decided by them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import timm
from torch import Tensor

from artifactgen.models.claims import shown

Tensors = Mapping[str, Tensor]

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

_VIT_BLOCK = (
    r"^(?!.*(?:layers|stages)\.\d+\.blocks)(?:.*\.)?blocks\.(?:\d+\.)?(\d+)\.norm1\.weight$"
)
"""Not within stages; DINOv2 counts its blocks in chunks."""

_SWIN_SIZES: Mapping[tuple[int, tuple[int, ...]], str] = {
    (96, (2, 2, 6, 2)): "tiny",
    (96, (2, 2, 18, 2)): "small",
    (128, (2, 2, 18, 2)): "base",
    (192, (2, 2, 18, 2)): "large",
}
"""Names by (width of the first stage, blocks of the stages)."""

_RESNETS: Mapping[tuple[tuple[int, ...], bool], str] = {
    ((2, 2, 2, 2), False): "resnet18",
    ((3, 4, 6, 3), False): "resnet34",
    ((3, 4, 6, 3), True): "resnet50",
    ((3, 4, 23, 3), True): "resnet101",
    ((3, 8, 36, 3), True): "resnet152",
}
"""Names by blocks of the four layers, and whether they are bottlenecks."""

_FOREIGN = {
    r"encoder_layer_\d+\.self_attention\.": "a vision transformer of torchvision",
    r"features\.\d+\.\d+\.attn\.(relative_position|cpb_mlp)": "a Swin transformer of torchvision",
    r"features\.\d+\.\d+\.(block\.\d|layer_scale)": "a ConvNeXt, EfficientNet or MobileNet of "
    "torchvision",
    r"encoder\.layer\.\d+\.attention\.attention\.query": "a ViT, DeiT or DINOv2 of Hugging Face",
    r"encoder\.layers\.\d+\.self_attn\.\w_proj": "a CLIP or SigLIP of Hugging Face",
    r"layer\.\d+\.attention\.\w_proj": "a DINOv3 of Hugging Face",
    r"layers\.\d+\.blocks\.\d+\.attention\.self\.": "a Swin transformer of Hugging Face",
    r"encoder\.stages\.\d+\.layers\.\d+\.": "a ConvNeXt or ResNet of Hugging Face",
    r"transformer\.resblocks\.\d+\.attn\.in_proj_weight": "a CLIP of OpenAI or OpenCLIP",
    r"to_patch_embedding\.": "a vision transformer of vit-pytorch",
}
"""Layouts of other libraries than timm, by what is in a name of theirs."""

_TAKEN_BY = {
    "torchvision": "model=torchvision, and model.backbone to its name there, such as vit_b_16",
    "Hugging Face": "model=huggingface, and model.path to the folder with its config.json",
}
"""By the library, how its layouts are asked for."""
_OF_ANY = "model=module, and model.target to the class that it was made with"


def looks_like(tensors: Tensors, num_heads: Any = None) -> str:
    """A sentence or two on what it is and which options take it; empty for what is not known.

    Args:
        tensors: by their names in the checkpoint, below whatever prefix.
        num_heads: what is stated of them: of a ViT, they leave no trace in weights.
    """
    for pattern, layout in _FOREIGN.items():
        if any(re.search(rf"(?:^|\.){pattern}", name) for name in tensors):
            how = next((how for of, how in _TAKEN_BY.items() if layout.endswith(of)), _OF_ANY)
            return f"By its names it looks like {layout}: set {how}."
    return _swin(tensors) or _vit(tensors, num_heads) or _resnet(tensors)


def not_recognised(tensors: Tensors) -> str:
    """A sentence for what looks like nothing that is known here."""
    names = list(tensors)
    listed = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    return (
        f"Its names ({listed}) tell no architecture that is known here. For a model of timm set "
        "model.backbone (and model.options) to what it was trained with; for a network of your "
        "own, model=module and model.target to its class, as in model.target=mypkg.MyNet."
    )


def as_options(options: Mapping[str, Any]) -> str:
    """`'model.options={embed_dim: 64, depth: 4}'`, as a shell takes it."""
    listed = ", ".join(f"{name}: {shown(value)}" for name, value in options.items())
    return f"'model.options={{{listed}}}'"


def _swin(tensors: Tensors) -> str:
    proj = _ending(tensors, "patch_embed.proj.weight")
    depths = _depths(tensors, r"(?:^|\.)layers\.(\d+)\.blocks\.(\d+)\.attn\.")
    if proj is None or proj.ndim != 4 or not depths:
        return ""
    second = _ending(tensors, "blocks.0.attn.logit_scale") is not None
    looks = f"It looks like a Swin{' V2' * second} of width {len(proj)} with {list(depths)} blocks"
    if _ending(tensors, "layers.0.downsample.reduction.weight") is not None:
        return (
            f"{looks}, in the layout of its authors, where a stage ends with its downsampling. "
            "timm's checkpoint_filter_fn converts it: save what that gives."
        )
    size = _SWIN_SIZES.get((len(proj), depths))
    if second:
        name = f"swinv2_{size}_window8_256" if size else "a swinv2"
        return f"{looks}: set model.backbone to {name}, or that with another window."
    return f"{looks}: {_swin_options(tensors, proj, depths, size)}"


def _swin_options(tensors: Tensors, proj: Tensor, depths: tuple[int, ...], size: str | None) -> str:
    tables = [
        _ending(tensors, f"layers.{stage}.blocks.0.attn.relative_position_bias_table")
        for stage in range(len(depths))
    ]
    known = [table for table in tables if table is not None and table.ndim == 2]
    if len(known) < len(tables):
        return "set model.backbone and model.options to it."
    windows = [(math.isqrt(len(table)) + 1) // 2 for table in known]
    heads = [table.shape[1] for table in known]
    names = [f"swin_{size}_patch4_window{windows[0]}_{pixels}" for pixels in (224, 384)]
    name = next((name for name in names if timm.is_model(name)), None)
    if name and proj.shape[-1] == 4:
        return f"try model.backbone={name}."
    options = {
        "embed_dim": len(proj),
        "depths": depths,
        "num_heads": heads,
        "window_size": windows[0],
        "patch_size": proj.shape[-1],
    }
    return f"set model.backbone=swin_tiny_patch4_window7_224 {as_options(options)}."


def vit_size(tensors: Tensors) -> tuple[str, int] | None:
    """What timm calls the size of a ViT, and its patch; None for another network."""
    proj, blocks = _ending(tensors, "patch_embed.proj.weight"), _count(tensors, _VIT_BLOCK)
    if proj is None or proj.ndim != 4:
        return None
    size = _VIT_SIZES.get((len(proj), blocks))
    return None if size is None else (size, proj.shape[-1])


def resnet_depth(tensors: Tensors) -> str:
    """Number of layers of a residual network, as its name has it; empty for another."""
    bottleneck = _ending(tensors, "layer1.0.conv3.weight") is not None
    name = _RESNETS.get((tuple(_residual_blocks(tensors)), bottleneck), "")
    return name.removeprefix("resnet")


def _vit(tensors: Tensors, num_heads: Any) -> str:
    proj = _ending(tensors, "patch_embed.proj.weight")
    blocks = _count(tensors, _VIT_BLOCK)
    if proj is None or proj.ndim != 4 or not blocks:
        return ""
    width, _, _, patch = proj.shape
    kind = "BEiT" if _ending(tensors, "attn.relative_position_bias_table") is not None else "ViT"
    looks = f"It looks like a {kind} with width {width}, {blocks} blocks, patch {patch}"
    name = _vit_name(tensors, width, blocks, patch, "beit" if kind == "BEiT" else "vit")
    if name:
        return f"{looks}: try model.backbone={name}."
    if kind == "BEiT":
        return f"{looks}; set model.backbone and model.options to it."
    return f"{looks}: set {_vit_options(tensors, width, blocks, patch, num_heads)}"


def _vit_name(tensors: Tensors, width: int, blocks: int, patch: int, kind: str) -> str | None:
    size = _VIT_SIZES.get((width, blocks))
    if size is None:
        return None
    stem = f"{kind}_{size}_patch{patch}"
    dinov2 = _ending(tensors, "blocks.0.ls1.gamma") is not None
    registers = any(_ending(tensors, name) is not None for name in ("reg_token", "register_tokens"))
    special = [f"{stem}_reg4_dinov2" if registers else f"{stem}_dinov2"] if dinov2 else []
    known = [*special, f"{stem}_224", *timm.list_models(f"{stem}_*")]
    return next((name for name in known if timm.is_model(name)), None)


def _vit_options(tensors: Tensors, width: int, blocks: int, patch: int, num_heads: Any) -> str:
    """Options for a ViT of a size that has no name."""
    named = f"vit_base_patch{patch}_224"
    base = named if timm.is_model(named) else "vit_base_patch16_224"
    hidden = _ending(tensors, "mlp.fc1.weight")
    registers = _ending(tensors, "reg_token")
    options: dict[str, Any] = {"embed_dim": width, "depth": blocks}
    options |= {"num_heads": num_heads} if isinstance(num_heads, int) else {}
    options |= (
        {} if hidden is None or len(hidden) == 4 * width else {"mlp_ratio": len(hidden) / width}
    )
    options |= {} if base == named else {"patch_size": patch}
    options |= {"reg_tokens": registers.shape[1]} if registers is not None else {}
    options |= {"class_token": False} if _ending(tensors, "cls_token") is None else {}
    options |= {"init_values": 1e-5} if _ending(tensors, "blocks.0.ls1.gamma") is not None else {}
    options |= {"qkv_bias": False} if _ending(tensors, "attn.qkv.bias") is None else {}
    options |= {"qk_norm": True} if _ending(tensors, "attn.q_norm.weight") is not None else {}
    heads = (
        ""
        if "num_heads" in options
        else (" Add num_heads as in training: it leaves no trace in weights.")
    )
    return f"model.backbone={base} {as_options(options)}{_size(tensors, patch)}.{heads}"


def _size(tensors: Tensors, patch: int) -> str:
    """The image size of square positions, where it is not the usual one."""
    positions = _ending(tensors, "pos_embed")
    if positions is None or positions.ndim != 3:
        return ""
    side = math.isqrt(positions.shape[1])
    return f" data.image_size=[{side * patch},{side * patch}]" if side * patch != 224 else ""


def _resnet(tensors: Tensors) -> str:
    layers = _residual_blocks(tensors)
    if not all(layers):
        return ""
    bottleneck = _ending(tensors, "layer1.0.conv3.weight") is not None
    name = _RESNETS.get((tuple(layers), bottleneck))
    looks = f"It looks like a ResNet with {layers} blocks"
    if name:
        return f"{looks}: try model.backbone={name}."
    base = "resnet50" if bottleneck else "resnet18"
    return f"{looks}: set model.backbone={base} {as_options({'layers': layers})}, or what it was."


def _residual_blocks(tensors: Tensors) -> list[int]:
    """Blocks of each of the four layers."""
    return [_count(tensors, rf"(?:^|\.)layer{i}\.(\d+)\.conv1\.weight$") for i in (1, 2, 3, 4)]


def _ending(tensors: Tensors, name: str) -> Tensor | None:
    """The first tensor called `name`, below whatever prefix."""
    return next((t for key, t in tensors.items() if f".{key}".endswith(f".{name}")), None)


def _count(tensors: Tensors, pattern: str) -> int:
    """Number of different indices that the pattern finds in the names."""
    return len({match[1] for key in tensors if (match := re.search(pattern, key))})


def _depths(tensors: Tensors, pattern: str) -> tuple[int, ...]:
    """Blocks of each stage, of names with both indices."""
    found = {(int(m[1]), int(m[2])) for key in tensors if (m := re.search(pattern, key))}
    stages = sorted({stage for stage, _ in found})
    return tuple(sum(stage == other for other, _ in found) for stage in stages)
