from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.binding import bind, random_images, random_model, run

from artifactgen.artifacts.embedding import Embedding
from artifactgen.errors import ConfigError
from benchmarks.exactness.reference import timm_embedding

TOLERANCE = 1e-5


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("test_vit", (160, 160), {}),
        ("test_vit", (96, 160), {"img_size": (96, 160)}),
        ("test_vit", (160, 160), {"global_pool": "avg"}),
        ("deit_tiny_distilled_patch16_224", (64, 64), {"img_size": 64}),
        ("resnet18", (96, 64), {}),
        ("convnext_atto", (64, 96), {}),
        ("mobilenetv3_small_050", (64, 64), {}),
        ("swin_tiny_patch4_window7_224", (64, 64), {"img_size": 64}),
    ],
)
def test_auto_is_what_timm_feeds_the_classifier_with(name, size, options):
    model = random_model(name, **options)
    x_BCHW = random_images(size=size)
    bound = bind(Embedding(), model, size)
    embeddings = bound.compute(run(model, bound, x_BCHW))["embeddings"].numpy()
    assert embeddings.dtype == np.float32
    expected = timm_embedding(model, x_BCHW)
    np.testing.assert_allclose(embeddings, expected, atol=TOLERANCE, rtol=0)


def pooled(features_BND: torch.Tensor, pooling: str) -> torch.Tensor:
    """The definitions, spelled out for a ViT with one class token and 4 registers."""
    class_token, patches = features_BND[:, 0], features_BND[:, 5:]
    return {
        "cls": class_token,
        "mean": patches.mean(1),
        "cls+mean": torch.cat([class_token, patches.mean(1)], 1),
        "max": patches.max(1).values,
        "none": patches.transpose(1, 2).reshape(len(patches), -1, 6, 10),
    }[pooling]


@pytest.mark.parametrize("pooling", ["cls", "mean", "cls+mean", "max", "none"])
def test_poolings_leave_prefix_tokens_out(pooling):
    size = (96, 160)
    model = random_model("test_vit", img_size=size, reg_tokens=4)
    x_BCHW = random_images(size=size)
    bound = bind(Embedding(pooling=pooling), model, size)
    embeddings = bound.compute(run(model, bound, x_BCHW))["embeddings"].numpy()
    with torch.no_grad():
        expected = pooled(model.forward_features(x_BCHW), pooling)
    np.testing.assert_allclose(embeddings, expected.numpy(), atol=TOLERANCE, rtol=0)


def test_mean_of_a_cnn_is_the_mean_over_positions():
    model = random_model("resnet18")
    x_BCHW = random_images(size=(64, 96))
    bound = bind(Embedding(pooling="mean"), model, (64, 96))
    embeddings = bound.compute(run(model, bound, x_BCHW))["embeddings"].numpy()
    with torch.no_grad():
        expected = model.forward_features(x_BCHW).mean((2, 3))
    np.testing.assert_allclose(embeddings, expected.numpy(), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("pooling", ["cls", "cls+mean"])
def test_class_token_of_a_model_without_one_is_refused(pooling):
    with pytest.raises(ConfigError, match="no class token"):
        bind(Embedding(pooling=pooling), random_model("resnet18"), (64, 64))
