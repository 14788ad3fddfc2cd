"""Models that timm has not built: torchvision's, transformers', Lightning's, a user's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torchvision
import transformers
from helpers.binding import random_images
from helpers.networks import Convolutions, Tokens
from lightning import LightningModule
from torch import Tensor, nn

from artifactgen import Explainer
from artifactgen.errors import ConfigError, UnsupportedError
from benchmarks.exactness.reference import pytorch_grad_cam

IMAGES = random_images(2, size=(64, 64))


class Training(LightningModule):
    """As a user writes it: the network in an attribute."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits


def randomised(model: nn.Module, scale: float = 0.05) -> Any:
    """Norms, biases and tokens random too, or many mistakes would not show."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn_like(parameter))
    return model.eval()


def hf_vit() -> Any:
    config = transformers.ViTConfig(
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=96,
        image_size=64,
        patch_size=16,
        id2label={0: "cat", 1: "dog", 2: "eel"},
        label2id={"cat": 0, "dog": 1, "eel": 2},
    )
    return randomised(transformers.ViTForImageClassification(config))


def resnet() -> Any:
    return randomised(torchvision.models.resnet18(num_classes=5), 0.01)


@pytest.mark.parametrize("name", ["torchvision", "lightning", "own"])
def test_a_cnn_equals_pytorch_grad_cam(name: str) -> None:
    models = {"torchvision": resnet, "lightning": lambda: Training(resnet())}
    model = models.get(name, lambda: randomised(Convolutions()))()
    x = Explainer(model)(IMAGES)
    layer = x.resolved["gradcam"]["layer"]
    classes = range(len(x.classes))
    theirs = pytorch_grad_cam(model, layer, IMAGES, classes, reshape=lambda output: output)
    assert theirs.max() > 0.9
    np.testing.assert_allclose(x.gradcam_heatmaps, theirs, rtol=0, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(x.logits, model(IMAGES), rtol=1e-4, atol=1e-5)


def test_the_embedding_is_what_arrives_at_the_classifier() -> None:
    model = resnet()
    headless = torchvision.models.resnet18(num_classes=5).eval()
    headless.load_state_dict(model.state_dict())
    headless.fc = nn.Identity()
    with torch.no_grad():
        expected = headless(IMAGES)
    torch.testing.assert_close(Explainer(model)(IMAGES).embeddings, expected, rtol=0, atol=1e-5)
    with pytest.raises(
        ConfigError, match=r"Set classifier to one of its modules .* or classifier="
    ):
        Explainer(headless)(IMAGES)
    x = Explainer(headless, classifier="none")(IMAGES)
    torch.testing.assert_close(x.embeddings, expected, rtol=0, atol=1e-5)
    with pytest.raises(UnsupportedError, match="ResNet has no classifier"):
        _ = x.probabilities
    # What could be one stays where it is.
    Explainer(model, classifier="none")(IMAGES)
    assert isinstance(model.fc, nn.Linear)


def test_a_model_of_transformers_brings_its_names() -> None:
    model = hf_vit()
    x = Explainer(model)(IMAGES)
    assert x.classes == ("cat", "dog", "eel")
    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(IMAGES, output_attentions=True)
        hidden = model.vit(IMAGES).last_hidden_state[:, 0]
    torch.testing.assert_close(x.logits, output.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(x.embeddings, hidden, rtol=0, atol=1e-5)
    expected = output.attentions[-1][:, :, 0, 1:].reshape(2, 1, 3, 4, 4)
    torch.testing.assert_close(x.attention, expected, rtol=0, atol=1e-5)
    layer = x.resolved["gradcam"]["layer"]
    logits = Logits(model)

    def reshape(output: Tensor) -> Tensor:
        return output[:, 1:].transpose(1, 2).reshape(len(output), -1, 4, 4)

    theirs = pytorch_grad_cam(logits, f"model.{layer}", IMAGES, range(3), reshape=reshape)
    assert theirs.max() > 0.9
    np.testing.assert_allclose(x.gradcam_heatmaps, theirs, rtol=0, atol=1e-4)


class Logits(nn.Module):
    """What pytorch-grad-cam has its users write."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x).logits
        return logits


def test_a_transformer_of_ones_own_has_its_registers_left_out() -> None:
    x = Explainer(randomised(Tokens(3)))(IMAGES)
    assert x.attention.shape == (2, 1, 4, 4, 4)
    assert x.gradcam.shape == (2, 3, 4, 4)
    assert x.figure().shape[1:] == (1800, 3)


def test_images_that_a_model_cannot_take() -> None:
    with pytest.raises(ConfigError, match=r"of 4 channels .* Its first convolution takes 3\.$"):
        Explainer(resnet())(torch.zeros(1, 4, 64, 64))
