"""Advice for a checkpoint that does not fit: what it looks like, and options that load it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
import yaml
from torch import Tensor, nn

from artifactgen.errors import CheckpointError
from artifactgen.models.checkpoint import Checkpoint, read_checkpoint
from artifactgen.models.file import identify
from artifactgen.models.loading import load_model
from artifactgen.models.matching import match_checkpoint
from artifactgen.models.timm import Timm

UNSET = Timm()


def refusal(folder: Path, state: dict[str, Tensor], family: Timm = UNSET, **content: Any) -> str:
    torch.save({"state_dict": state, **content}, folder / "last.ckpt")
    with pytest.raises(CheckpointError) as caught:
        load_model(family, read_checkpoint(identify(folder / "last.ckpt")))
    return str(caught.value).splitlines()[-1]


def advised(message: str) -> Timm:
    """The options that a message advises, read as a command line's."""
    backbone = re.search(r"model\.backbone=(\w+)", message)
    assert backbone is not None, message
    options = re.search(r"'model\.options=(\{.*?\})'", message)
    size = re.search(r"data\.image_size=\[(\d+),(\d+)\]", message)
    return Timm(
        backbone=backbone[1],
        options=yaml.safe_load(options[1]) if options else {},
        image_size=(int(size[1]), int(size[2])) if size else None,
    )


def small(name: str, **options: Any) -> dict[str, Tensor]:
    return dict(timm.create_model(name, num_classes=3, **options).state_dict())


MODELS = [
    ("vit_tiny_patch16_224", {"embed_dim": 64, "depth": 4, "num_heads": 4, "mlp_ratio": 2.0}),
    ("vit_tiny_patch16_224", {"embed_dim": 96, "depth": 2, "patch_size": 8, "img_size": 32}),
    ("vit_tiny_patch16_224", {"embed_dim": 60, "depth": 2, "patch_size": 4, "img_size": 32}),
    (
        "vit_tiny_patch16_224",
        {"embed_dim": 60, "depth": 1, "init_values": 1e-5, "qkv_bias": False, "qk_norm": True},
    ),
    ("vit_tiny_patch16_224", {"embed_dim": 60, "depth": 1, "reg_tokens": 4, "img_size": 224}),
    ("vit_tiny_patch16_224", {"embed_dim": 60, "depth": 1, "global_pool": "avg"}),
    ("swin_small_patch4_window7_224", {}),
    ("swin_base_patch4_window12_384", {}),
    ("swin_tiny_patch4_window7_224", {"embed_dim": 24, "depths": (1, 1), "num_heads": (1, 2)}),
    ("swin_tiny_patch4_window7_224", {"window_size": 4, "img_size": 128, "depths": (1, 1, 1, 1)}),
    ("resnet50", {}),
    ("resnet18", {"layers": (1, 1, 1, 1)}),
]


@pytest.mark.parametrize(("name", "options"), MODELS)
@pytest.mark.parametrize("prefix", ["", "model.encoder."])
def test_what_is_advised_takes_the_checkpoint(
    tmp_path: Path, name: str, options: dict[str, Any], prefix: str
) -> None:
    with torch.device("meta"):
        state = small(name, **options)
    state = {prefix + key: torch.empty(tensor.shape) for key, tensor in state.items()}
    message = refusal(tmp_path, state)
    family = advised(message)
    own = {key.removeprefix(prefix): tensor.shape for key, tensor in state.items()}
    built = replace(family, num_classes=3, global_pool=options.get("global_pool"))
    if "window_size" in options:
        built = replace(built, image_size=(128, 128))
    if "Add num_heads as in training" in message:
        built = replace(built, options={**built.options, "num_heads": options.get("num_heads", 3)})
    assert {k: v.shape for k, v in built.build().module.state_dict().items()} == own, message


def test_heads_are_only_given_where_they_are_stated(tmp_path: Path) -> None:
    state = small("vit_tiny_patch16_224", embed_dim=48, depth=2, num_heads=3)
    assert refusal(tmp_path, state).endswith(
        "'model.options={embed_dim: 48, depth: 2}'. "
        "Add num_heads as in training: it leaves no trace in weights."
    )
    assert refusal(tmp_path, state, num_classes=3, hparams={"num_heads": 3}).endswith(
        "'model.options={embed_dim: 48, depth: 2, num_heads: 3}'."
    )


def test_a_swin_is_no_vit(tmp_path: Path) -> None:
    state = small("swin_tiny_patch4_window7_224", embed_dim=24, depths=(1, 2), num_heads=(1, 2))
    for family in (UNSET, Timm(backbone="swin_tiny_patch4_window7_224"), Timm(backbone="resnet18")):
        message = refusal(tmp_path, state, family)
        assert "It looks like a Swin of width 24 with [1, 2] blocks" in message
        assert "ViT" not in message
    message = refusal(tmp_path, small("swinv2_tiny_window8_256"))
    assert "Swin V2 of width 96" in message
    assert "swinv2_tiny_window8_256" in message


def test_the_swin_layout_of_its_authors(tmp_path: Path) -> None:
    own = small("swin_tiny_patch4_window7_224", embed_dim=24, depths=(1, 1), num_heads=(1, 2))
    state = {key.replace("layers.1.downsample", "layers.0.downsample"): v for key, v in own.items()}
    assert "checkpoint_filter_fn" in refusal(tmp_path, state)


class Own(nn.Module):
    """A network that nobody but its author knows."""

    def __init__(self) -> None:
        super().__init__()
        self.entry, self.exit = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)


def zeros(*names: str) -> dict[str, Tensor]:
    return {name: torch.zeros(4, 4) for name in names}


FOREIGN = {
    "a vision transformer of torchvision": torchvision.models.vit_b_16,
    "a Swin transformer of torchvision": torchvision.models.swin_t,
    "a ConvNeXt, EfficientNet or MobileNet of torchvision": torchvision.models.efficientnet_b0,
    "a ViT, DeiT or DINOv2 of Hugging Face": lambda: zeros(
        "vit.embeddings.cls_token", "vit.encoder.layer.0.attention.attention.query.weight"
    ),
    "a CLIP or SigLIP of Hugging Face": lambda: zeros(
        "vision_model.encoder.layers.0.self_attn.q_proj.weight"
    ),
    "a DINOv3 of Hugging Face": lambda: zeros("layer.0.attention.q_proj.weight"),
    "a Swin transformer of Hugging Face": lambda: zeros(
        "swin.encoder.layers.0.blocks.0.attention.self.query.weight"
    ),
    "a ConvNeXt or ResNet of Hugging Face": lambda: zeros(
        "convnext.encoder.stages.0.layers.0.dwconv.weight"
    ),
    "a CLIP of OpenAI or OpenCLIP": lambda: zeros(
        "visual.transformer.resblocks.0.attn.in_proj_weight"
    ),
}


CHOICES = {"torchvision": "torchvision", "Hugging Face": "huggingface"}
"""The family that takes the layouts of a library; of others, a class of one's own."""


@pytest.mark.parametrize("layout", FOREIGN)
@pytest.mark.parametrize("family", [UNSET, Timm(backbone="test_vit"), Timm(backbone="resnet18")])
def test_a_layout_of_another_library_is_named(tmp_path: Path, layout: str, family: Timm) -> None:
    with torch.device("meta"):
        made = FOREIGN[layout]()
    state = made if isinstance(made, dict) else made.state_dict()
    state = {key: torch.zeros(1) for key in state}
    message = refusal(tmp_path, state, family)
    assert f"By its names it looks like {layout}: set model=" in message
    library = next((name for name in CHOICES if layout.endswith(name)), "")
    assert f"set model={CHOICES.get(library, 'module')}, and model." in message


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext", "densenet121"])
def test_no_model_of_timm_is_taken_for_another_layout(tmp_path: Path, name: str) -> None:
    with torch.device("meta"):
        names = timm.create_model(name).state_dict()
    message = refusal(tmp_path, {key: torch.zeros(1) for key in names}, Timm(backbone="vgg11"))
    assert "By its names it looks like" not in message


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    for family in (UNSET, Timm(backbone="test_vit")):
        message = refusal(tmp_path, Own().state_dict(), family)
        assert message == (
            "Its names (entry.weight, entry.bias, exit.weight, …) tell no architecture that is "
            "known here. For a model of timm set model.backbone (and model.options) to what it was "
            "trained with; for a network of your own, model=module and model.target to its class, "
            "as in model.target=mypkg.MyNet."
        )


def test_what_a_checkpoint_says_of_itself_is_advised(tmp_path: Path) -> None:
    options = {"embed_dim": 48, "depth": 2, "num_heads": 3}
    said = {"backbone": "vit_tiny_patch16_224", **options}
    state = small("vit_tiny_patch16_224", **options)
    message = refusal(tmp_path, state, Timm(backbone="resnet18"), hyper_parameters=said)
    assert message == (
        "The checkpoint says that it is a vit_tiny_patch16_224 (hyper_parameters.backbone): try "
        "model.backbone=vit_tiny_patch16_224 'model.options={embed_dim: 48, depth: 2, num_heads: "
        "3}'."
    )


# Every model of timm that people train: the one that fits, by its weights.

NAMED = [
    *("vit_small_patch16_224", "vit_base_patch16_224", "vit_large_patch16_224"),
    *("vit_base_patch32_224", "vit_base_patch14_reg4_dinov2", "deit_tiny_distilled_patch16_224"),
    *("vit_base_patch16_siglip_224", "eva02_small_patch14_224", "beit_base_patch16_224"),
    *("resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "seresnet50", "resnetv2_50"),
    *("convnext_tiny", "convnextv2_tiny", "efficientnet_b0", "efficientnet_b3", "densenet121"),
    *("swin_tiny_patch4_window7_224", "swin_base_patch4_window12_384", "mobilenetv3_large_100"),
]


@pytest.mark.parametrize("name", NAMED)
def test_the_model_that_fits_is_named(tmp_path: Path, name: str) -> None:
    """On the meta device: weights of 300 million parameters need no disk."""
    torch.save({}, tmp_path / "last.ckpt")
    with torch.device("meta"):
        state = timm.create_model(name, num_classes=5).state_dict()
    checkpoint = Checkpoint(
        identify(tmp_path / "last.ckpt"), {f"net.{k}": v for k, v in state.items()}, "state_dict"
    )
    for family in (UNSET, Timm(backbone="test_resnet")):
        with pytest.raises(CheckpointError) as caught:
            load_model(family, checkpoint)
        said = str(caught.value).splitlines()[-1]
        assert said.startswith(f"Its weights fit {name}: set model.backbone={name}.")
    match = match_checkpoint(advised(said), checkpoint, classes=None)
    assert match.audit.fits
    assert match.audit.head == "loaded"


@pytest.mark.parametrize("name", ["vit_small_patch16_224", "resnet18", "efficientnet_b0"])
@pytest.mark.parametrize("channels", [3, 1])
def test_what_is_named_loads(tmp_path: Path, name: str, channels: int) -> None:
    state = small(name, in_chans=channels)
    said = refusal(tmp_path, state, Timm(backbone="test_convnext"))
    assert ("model.in_chans=1" in said) == (channels == 1)
    family = replace(advised(said), in_chans=channels)
    loaded = load_model(family, read_checkpoint(identify(tmp_path / "last.ckpt")))
    own = loaded.network.module.state_dict()
    assert all(torch.equal(own[key], state[key]) for key in own)


def test_weights_that_fit_two_models_are_said_to(tmp_path: Path) -> None:
    """TensorFlow's convolutions pad otherwise, which leaves no trace."""
    said = refusal(tmp_path, small("tf_efficientnet_b0"), Timm(backbone="test_vit"))
    assert "tf_efficientnet_b0 would take them as well, and compute something else." in said


def test_options_of_another_model_are_to_be_left_out(tmp_path: Path) -> None:
    options = {"depth": 3}
    said = refusal(tmp_path, small("resnet18"), Timm(backbone="test_vit", options=options))
    assert said.endswith("set model.backbone=resnet18. Leave model.options out: model.options={}.")


def test_another_size_of_what_fits(tmp_path: Path) -> None:
    state = small("vit_tiny_patch16_224", img_size=384)
    said = refusal(tmp_path, state, Timm(backbone="resnet18"))
    assert "set model.backbone=vit_tiny_patch16_224." in said
    loaded = load_model(advised(said), read_checkpoint(identify(tmp_path / "last.ckpt")))
    assert loaded.network.family.image_size == (384, 384)
