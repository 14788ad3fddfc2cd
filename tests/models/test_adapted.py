"""Weights of another image size, patch size or number of channels: as timm resamples them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from artifactgen.errors import CheckpointError
from artifactgen.models.checkpoint import read_checkpoint
from artifactgen.models.file import identify
from artifactgen.models.loading import LoadedModel, load_model
from artifactgen.models.stated import read_stated
from artifactgen.models.timm import Timm

SMALL = {"embed_dim": 48, "depth": 2, "num_heads": 3}
SWIN = {"embed_dim": 24, "depths": (1, 1), "num_heads": (2, 4), "patch_size": 4, "window_size": 7}
BEIT = {**SMALL, "init_values": 1e-5}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "vit": (
        "vit_tiny_patch16_224",
        SMALL,
        {"img_size": (256, 256)},
        "position embeddings resampled from 14 × 14 to 16 × 16",
    ),
    "oblong": (
        "vit_tiny_patch16_224",
        SMALL,
        {"img_size": (96, 160)},
        "position embeddings resampled from 14 × 14 to 6 × 10",
    ),
    "registers": (
        "vit_small_patch14_reg4_dinov2",
        {**SMALL, "img_size": 224},
        {"img_size": (112, 112)},
        "position embeddings resampled from 16 × 16 to 8 × 8",
    ),
    "patches": (
        "vit_tiny_patch16_224",
        SMALL,
        {"patch_size": 8},
        "position embeddings resampled from 14 × 14 to 28 × 28; "
        "patch kernel resampled from 16 × 16 to 8 × 8",
    ),
    "one channel": (
        "vit_tiny_patch16_224",
        SMALL,
        {"in_chans": 1},
        "first convolution adapted from 3 to 1 channel(s)",
    ),
    "five channels of a ResNet": (
        "test_resnet",
        {},
        {"in_chans": 5},
        "first convolution adapted from 3 to 5 channel(s)",
    ),
    "distilled": (
        "deit_tiny_distilled_patch16_224",
        SMALL,
        {"img_size": (160, 160)},
        "position embeddings resampled from 14 × 14 to 10 × 10",
    ),
    "windows": (
        "swin_tiny_patch4_window7_224",
        SWIN,
        {"img_size": (256, 256), "window_size": 8},
        "relative positions resampled from 7 × 7 to 8 × 8",
    ),
    "beit": (
        "beit_base_patch16_224",
        BEIT,
        {"img_size": (160, 160)},
        "relative positions resampled from 14 × 14 to 10 × 10",
    ),
    "eva": (
        "eva02_tiny_patch14_224",
        SMALL,
        {"img_size": (112, 112)},
        "position embeddings resampled from 16 × 16 to 8 × 8",
    ),
    "all at once": (
        "vit_tiny_patch16_224",
        SMALL,
        {"img_size": (128, 128), "patch_size": 8, "in_chans": 1},
        "first convolution",
    ),
}


def trained(backbone: str, options: dict[str, Any]) -> nn.Module:
    torch.manual_seed(0)
    module: nn.Module = timm.create_model(backbone, num_classes=4, **options).eval()
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) * 0.1 + 0.05)
    return module


def load(path: Path, state: dict[str, Any], family: Timm) -> LoadedModel:
    torch.save(state, path)
    checkpoint = read_checkpoint(identify(path))
    return load_model(family, checkpoint, stated=read_stated(checkpoint, family))


def family_of(backbone: str, options: dict[str, Any], changes: dict[str, Any]) -> Timm:
    given = {**options, **changes}
    size, channels = given.pop("img_size", None), given.pop("in_chans", 3)
    if isinstance(size, int):
        size = (size, size)
    return Timm(backbone=backbone, options=given, image_size=size, in_chans=channels)


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # of timm's interpolation
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_equal_to_what_timm_makes_of_it_to_the_bit(
    tmp_path: Path, case: str, dtype: torch.dtype
) -> None:
    backbone, options, changes, told = CASES[case]
    state = trained(backbone, options).to(dtype).state_dict()
    family = family_of(backbone, options, changes)
    loaded = load(tmp_path / "model.pt", {f"net.{k}": v for k, v in state.items()}, family)
    source = tmp_path / "for_timm.pt"
    torch.save(state, source)
    expected = timm.create_model(
        backbone,
        pretrained=True,
        pretrained_cfg_overlay={"file": str(source), "num_classes": 4},
        num_classes=4,
        **{**options, **changes},
    )
    assert_equal(loaded.network.module, expected)
    assert told in loaded.audit.summary()
    assert loaded.audit.fits


def assert_equal(module: nn.Module, expected: nn.Module) -> None:
    own, other = module.state_dict(), expected.state_dict()
    assert own.keys() == other.keys()
    assert [name for name in own if not torch.equal(own[name], other[name])] == []
    x_BCHW = torch.rand(1, *_input(module))
    with torch.inference_mode():
        torch.testing.assert_close(module(x_BCHW), expected.eval()(x_BCHW), rtol=0, atol=0)


def _input(module: Any) -> tuple[int, int, int]:
    first = module.get_parameter(f"{module.pretrained_cfg['first_conv']}.weight")
    height, width = getattr(getattr(module, "patch_embed", None), "img_size", None) or (224, 224)
    return int(first.shape[1]), height, width


def test_a_worker_makes_the_same_of_it(tmp_path: Path) -> None:
    backbone, options, changes, _ = CASES["all at once"]
    path = tmp_path / "model.pt"
    state = trained(backbone, options).state_dict()
    loaded = load(path, state, family_of(backbone, options, changes))
    again = load_model(loaded.network.family, read_checkpoint(identify(path)))
    assert_equal(again.network.module, loaded.network.module)
    assert again.audit.adapted == loaded.audit.adapted


@pytest.mark.parametrize("backbone", ["vit_tiny_patch16_224", "beit_base_patch16_224"])
def test_a_size_that_nobody_set_is_the_checkpoints_own(tmp_path: Path, backbone: str) -> None:
    state = trained(backbone, {**SMALL, "img_size": 384}).state_dict()
    loaded = load(tmp_path / "model.pt", state, Timm(backbone=backbone, options=SMALL))
    assert loaded.network.family.image_size == (384, 384)
    assert "image_size [384,384] (its position embeddings)" in loaded.audit.taken
    assert loaded.audit.adapted == ()
    own = loaded.network.module.state_dict()
    assert all(torch.equal(own[name], state[name]) for name in own)


def test_a_stated_size_that_is_wrong_is_not_resampled_to(tmp_path: Path) -> None:
    module = trained("vit_tiny_patch16_224", {**SMALL, "img_size": 384})
    payload = {"state_dict": module.state_dict(), "hyper_parameters": {"img_size": 256}}
    loaded = load(tmp_path / "m.pt", payload, Timm(backbone="vit_tiny_patch16_224", options=SMALL))
    assert loaded.network.family.image_size == (384, 384)
    assert loaded.audit.adapted == ()
    assert "image_size [256,256] (hyper_parameters.img_size)" in loaded.audit.refuted


def test_a_size_that_is_set_goes_before_a_stated_one(tmp_path: Path) -> None:
    module = trained("vit_tiny_patch16_224", SMALL)
    payload = {"state_dict": module.state_dict(), "hyper_parameters": {"img_size": 224}}
    family = Timm(backbone="vit_tiny_patch16_224", options=SMALL, image_size=(256, 256))
    loaded = load(tmp_path / "m.pt", payload, family)
    assert loaded.network.family.image_size == (256, 256)
    assert loaded.audit.adapted == ("position embeddings resampled from 14 × 14 to 16 × 16",)
    assert (loaded.audit.refuted, loaded.warnings) == ((), ())


def refusal(path: Path, state: dict[str, Tensor], family: Timm) -> str:
    with pytest.raises(CheckpointError) as caught:
        load(path, state, family)
    return str(caught.value)


def test_another_architecture_is_not_resampled(tmp_path: Path) -> None:
    """Patches of 16 in a model of patches of 32, for which nobody asked by an option."""
    state = trained("vit_tiny_patch16_224", SMALL).state_dict()
    family = Timm(backbone="vit_base_patch32_224", options=SMALL, image_size=(256, 256))
    assert "patch 16" in refusal(tmp_path / "m.pt", state, family)


def test_a_wider_network_is_not_adapted(tmp_path: Path) -> None:
    state = trained("vit_tiny_patch16_224", SMALL).state_dict()
    options = {**SMALL, "embed_dim": 96}
    family = Timm(backbone="vit_tiny_patch16_224", options=options, image_size=(256, 256))
    assert "Other shape" in refusal(tmp_path / "m.pt", state, family)


def test_positions_of_a_grid_that_is_not_square_are_not_guessed(tmp_path: Path) -> None:
    state = trained("vit_tiny_patch16_224", {**SMALL, "img_size": (96, 128)}).state_dict()
    message = refusal(
        tmp_path / "m.pt", state, Timm(backbone="vit_tiny_patch16_224", options=SMALL)
    )
    assert "It has positions for 48 patches: set data.image_size as in training." in message
    family = Timm(backbone="vit_tiny_patch16_224", options=SMALL, image_size=(160, 128))
    assert "positions for 48 patches" in refusal(tmp_path / "m.pt", state, family)


def test_grey_images_into_a_model_of_three_channels_are_asked_for(tmp_path: Path) -> None:
    """Three is what is set where nobody sets anything."""
    state = trained("test_resnet", {"in_chans": 1}).state_dict()
    message = refusal(tmp_path / "m.pt", state, Timm(backbone="test_resnet"))
    assert "try model.in_chans=1" in message


def test_what_timm_does_not_resample_is_refused(tmp_path: Path) -> None:
    options = {"embed_dim": 24, "num_heads": 1, "stages": (1, 1, 1, 1)}
    state = trained("hiera_tiny_224", options).state_dict()
    family = Timm(backbone="hiera_tiny_224", options=options, image_size=(256, 256))
    told = "timm does not resample those of hiera_tiny_224: set data.image_size as in training"
    assert told in refusal(tmp_path / "m.pt", state, family)
