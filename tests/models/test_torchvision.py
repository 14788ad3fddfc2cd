"""Models of torchvision: as exact as those of timm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.exactness import (
    channels_first,
    channels_last,
    embeddings,
    images,
    require_same_cam,
    roughen,
    shown_attention,
    tokens,
    windowed_mean,
)
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torchvision.models import ResNet18_Weights, googlenet
from torchvision.transforms import InterpolationMode

from artifactgen.errors import CheckpointError, ConfigError
from artifactgen.models.checkpoint import read_checkpoint
from artifactgen.models.file import identify
from artifactgen.models.hooked import HookedNetwork
from artifactgen.models.loading import load_model
from artifactgen.models.torchvision import Torchvision


def build(backbone: str, size: int = 64, **options: Any) -> HookedNetwork:
    torch.manual_seed(0)
    family = Torchvision(backbone=backbone, num_classes=4, image_size=(size, size), **options)
    network = family.build()
    roughen(network.module)
    return network


def test_a_resnet() -> None:
    network = build("resnet18")
    model: Any = network.module
    assert (network.classifiers, network.traits.last_stage) == (("fc",), "layer4")
    whole = torch.nn.Sequential(*list(model.children())[:-1])
    with torch.no_grad():
        expected = whole(images((64, 64))).flatten(1)
    found, logits_BK = embeddings(network)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(logits_BK, model.fc(expected), rtol=0, atol=1e-5)
    bound = require_same_cam(network, channels_first)
    assert (bound.layer, bound.resolved()["route"]) == ("layer4", "pooled")


def test_a_vit_of_small_images() -> None:
    network = build("vit_b_16")
    model: Any = network.module
    assert network.traits.prefix_tokens == 1
    assert (network.traits.has_class_token, network.traits.pools_patches) == (True, False)
    kept: dict[str, Tensor] = {}
    last = model.encoder.layers[-1]
    last.ln_1.register_forward_hook(lambda _m, _i, output: kept.update(y=output))
    model.encoder.ln.register_forward_hook(lambda _m, _i, output: kept.update(out=output))
    with torch.no_grad():
        model(images((64, 64)))
        _, weights = last.self_attention(*[kept["y"]] * 3, average_attn_weights=False)
    found, _ = embeddings(network)
    torch.testing.assert_close(found, kept["out"][:, 0], rtol=0, atol=1e-5)
    bound, attention = shown_attention(network)
    assert bound.sites[-1].path == "encoder.layers.encoder_layer_11.self_attention"
    expected = weights[:, :, 0, 1:].unflatten(-1, (4, 4)).numpy()
    np.testing.assert_allclose(attention[:, 0], expected, rtol=0, atol=1e-5)
    cam = require_same_cam(network, tokens((4, 4), 1))
    assert cam.layer == "encoder.layers.encoder_layer_11.ln_1"


class _Softmaxes(TorchFunctionMode):
    """The weights of every attention, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is functional.softmax:
            self.seen.append(result)
        return result


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["swin_t", "swin_v2_t"])
def test_a_swin(backbone: str) -> None:
    network = build(backbone)
    assert network.traits.channels_last
    cam = require_same_cam(network, channels_last)
    assert cam.layer == "features.7.1.norm1"
    with torch.no_grad(), _Softmaxes() as softmaxes:
        network.module(images((64, 64)))
    window = {"swin_t": 7, "swin_v2_t": 8}[backbone]
    for block, shift in ((0, 0), (1, window // 2)):
        _, found = shown_attention(network, (block,))
        expected = windowed_mean(softmaxes.seen[block], 16, window, shift)
        np.testing.assert_allclose(found[:, 0], expected.numpy(), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "classifier", "layer"),
    [
        ("convnext_tiny", "classifier.2", "features"),
        ("regnet_y_400mf", "fc", "trunk_output"),
        ("mobilenet_v3_small", "classifier.3", "features"),
        ("squeezenet1_1", "classifier.1", "features"),
        ("vgg11", "classifier.6", "features"),
        ("googlenet", "fc", "inception5b"),
    ],
)
def test_other_architectures(backbone: str, classifier: str, layer: str) -> None:
    network = build(backbone)
    assert network.classifiers == (classifier,)
    assert require_same_cam(network, channels_first).layer == layer


def test_what_torchvision_says_of_its_weights() -> None:
    preset = ResNet18_Weights.DEFAULT.transforms()
    family = Torchvision(backbone="resnet18")
    assert family.input_size() == (224, 224)
    assert family.normalization() == (tuple(preset.mean), tuple(preset.std))
    assert preset.interpolation is InterpolationMode.BILINEAR
    assert Torchvision(backbone="vit_h_14").input_size() == (518, 518)
    assert Torchvision(backbone="vit_h_14", weights="IMAGENET1K_SWAG_LINEAR_V1").input_size() == (
        224,
        224,
    )


def test_other_channels() -> None:
    network = Torchvision(backbone="resnet18", in_chans=5, image_size=(64, 64)).build()
    assert network.module.get_submodule("conv1").in_channels == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": None}, "model.backbone is not set"),
        ({"backbone": "resnet19"}, "no such model. Did you mean resnet18"),
        ({"backbone": "fcn_resnet50"}, "no such model"),
        ({"weights": "IMAGENET"}, r"model\.weights=IMAGENET: resnet18 has no such"),
        ({"options": {"weights": "x"}}, r"options\.weights is not free: set ckpt_path"),
        ({"options": {"depth": 3}}, r"cannot build it with depth=3 .*'depth'"),
        ({"backbone": "vit_b_16", "image_size": (64, 70)}, "cannot build it with"),
    ],
)
def test_what_does_not_fit_is_said(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Torchvision(**{"backbone": "resnet18", **options}).build()


def test_an_adapter_of_the_classifier_is_not_left_out(tmp_path: Path) -> None:
    weights = build("resnet18").module.state_dict()
    torch.save({**weights, "fc.lora_A": torch.ones(2, 512)}, tmp_path / "weights.pt")
    checkpoint = read_checkpoint(identify(tmp_path / "weights.pt"))
    with pytest.raises(CheckpointError, match=r"the classifier is incomplete \(fc\.lora_A\)"):
        load_model(Torchvision(backbone="resnet18"), checkpoint)
    loaded = load_model(Torchvision(backbone="resnet18", num_classes=0), checkpoint)
    assert not loaded.has_head


@pytest.mark.parametrize("asked", [None, False])
def test_images_are_transformed_as_with_torchvisions_own_weights(asked: bool | None) -> None:
    """It leaves no trace in weights: those of both fit both."""
    options = {"aux_logits": False} | ({} if asked is None else {"transform_input": asked})
    network = build("googlenet", options=options)
    theirs = googlenet(
        num_classes=4, init_weights=False, aux_logits=False, transform_input=asked is None
    ).eval()
    theirs.load_state_dict(network.module.state_dict())
    with torch.no_grad():
        expected = theirs(images((64, 64)))
    torch.testing.assert_close(embeddings(network)[1], expected, rtol=0, atol=1e-5)
