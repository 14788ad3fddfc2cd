"""Models of the families beside timm, and what is known of their architectures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from benchmarks.exactness.cases import Layout
from benchmarks.exactness.trained import (
    SIDE,
    VIT,
    Make,
    compared,
    huggingface,
    lightning,
    torchvision,
)
from benchmarks.exactness.unfused import Shown, WindowForm


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model and what is known of its architecture."""

    title: str
    make: Make
    layout: Layout
    attention: Shown | None = None


def _tokens(prefix: int) -> Layout:
    return Layout(order="NLC", grid=(4, 4), prefix=prefix)


def _patches(
    layer: str, prefix: int, heads: int = 3, query: Literal["class", "pool"] = "class"
) -> Shown:
    return Shown(layer=layer, heads=heads, grid=(4, 4), prefix=prefix, query=query)


_DINO = "dinov2_with_registers"
_TOWER = "vision_model.encoder.layers.2.self_attn"
_SWIN = {"embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
CASES = (
    Case(
        title="ViT",
        make=huggingface("vit", **VIT),
        layout=_tokens(1),
        attention=_patches("vit.layers.2.attention", 1),
    ),
    Case(
        title="DINOv2 with 4 registers",
        make=huggingface(_DINO, **VIT, num_register_tokens=4),
        layout=_tokens(5),
        attention=_patches(f"{_DINO}.encoder.layer.2.attention", 5),
    ),
    Case(
        title="Swin",
        make=huggingface("swin", image_size=SIDE, **_SWIN),
        layout=Layout(order="NLC", grid=(8, 8)),
        attention=Shown(
            layer="swin.encoder.layers.1.blocks.1.attention",
            heads=4,
            grid=(8, 8),
            windows=WindowForm(size=(4, 4), shift=(2, 2)),
        ),
    ),
    Case(
        title="ConvNeXt",
        make=huggingface(
            "convnext", image_size=SIDE, depths=[1, 1], hidden_sizes=[12, 24], num_stages=2
        ),
        layout=Layout(order="NCHW", grid=(8, 8)),
    ),
    Case(
        title="CLIP, text vectors",
        make=compared("clip", projection_dim=32),
        layout=_tokens(1),
        attention=_patches(_TOWER, 1),
    ),
    Case(
        title="SigLIP, text vectors",
        make=compared("siglip"),
        layout=_tokens(0),
        attention=_patches("vision_model.head.attention", 0, query="pool"),
    ),
    Case(
        title="`resnet18`",
        make=torchvision("resnet18", "fc", side=128),
        layout=Layout(order="NCHW", grid=(4, 4)),
    ),
    Case(
        title="`vit_b_16`",
        make=torchvision("vit_b_16", "heads.head", image_size=SIDE),
        layout=_tokens(1),
        attention=_patches("encoder.layers.encoder_layer_11.self_attention", 1, heads=12),
    ),
    Case(
        title="a LightningModule",
        make=lightning,
        layout=_tokens(1),
        attention=_patches("blocks.layers.2.self_attn", 1),
    ),
)
