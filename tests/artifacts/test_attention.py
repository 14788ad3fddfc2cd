"""Equal to the softmax of timm's own unfused attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import bind, random_images, random_model, run
from torch import Tensor, nn

from artifactgen.artifacts.attention import AttentionMaps
from artifactgen.errors import ConfigError, UnsupportedError
from benchmarks.reference import attention_matrices

TOLERANCE = 1e-5
SIZE = (96, 160)
GRID = (6, 10)


def compute(model: nn.Module, x_BCHW: Tensor, options: AttentionMaps) -> np.ndarray:
    bound = bind(options, model, tuple(x_BCHW.shape[-2:]))
    assert all(block.attn.fused_attn for block in model.blocks)
    return bound.compute(run(model, bound, x_BCHW))["attention"].numpy()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reg_tokens": 4},
        {"qk_norm": True},
        {"global_pool": "avg"},
        {"depth": 2, "num_heads": 4},
    ],
    ids=str,
)
@pytest.mark.parametrize("layers", [(-1,), (0, 1)])
def test_class_token_rows_equal_the_unfused_softmax(options, layers):
    model = random_model("test_vit", img_size=SIZE, **options)
    x_BCHW = random_images(size=SIZE)
    attention = compute(model, x_BCHW, AttentionMaps(layers=layers))
    matrices = attention_matrices(model, x_BCHW)
    prefix = model.num_prefix_tokens
    rows = torch.stack([matrices[index][:, :, 0, prefix:] for index in layers], 1)
    expected = rows.reshape(*rows.shape[:3], *GRID).numpy()
    assert attention.dtype == np.float32
    np.testing.assert_allclose(attention, expected, atol=TOLERANCE, rtol=0)
    assert attention.sum((-2, -1)).max() < 1, "the prefix tokens keep their share of the softmax"


def test_distilled_model_leaves_both_tokens_out():
    model = random_model("deit_tiny_distilled_patch16_224", img_size=SIZE)
    x_BCHW = random_images(size=SIZE)
    attention = compute(model, x_BCHW, AttentionMaps())
    expected = attention_matrices(model, x_BCHW)[-1][:, :, 0, 2:].reshape(3, 1, 3, *GRID)
    np.testing.assert_allclose(attention, expected.numpy(), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("options", [{}, {"class_token": False, "global_pool": "avg"}], ids=str)
def test_mean_query_is_the_mean_over_patch_rows(options):
    model = random_model("test_vit", img_size=SIZE, **options)
    x_BCHW = random_images(size=SIZE)
    attention = compute(model, x_BCHW, AttentionMaps(method="mean_query"))
    prefix = model.num_prefix_tokens
    matrix = attention_matrices(model, x_BCHW)[-1]
    expected = matrix[:, :, prefix:, prefix:].mean(2).reshape(3, 1, -1, *GRID)
    np.testing.assert_allclose(attention, expected.numpy(), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("last", [-1, 2])
def test_rollout_is_the_product_of_abnar_and_zuidema(last):
    model = random_model("test_vit", img_size=SIZE)
    x_BCHW = random_images(size=SIZE)
    attention = compute(model, x_BCHW, AttentionMaps(method="rollout", layers=(last,)))
    matrices = attention_matrices(model, x_BCHW).mean(2)
    matrices = matrices if last == -1 else matrices[: last + 1]
    flow = torch.eye(matrices.shape[-1]).expand(3, -1, -1)
    for matrix in matrices:
        mixed = matrix + torch.eye(matrix.shape[-1])
        flow = (mixed / mixed.sum(-1, keepdim=True)) @ flow
    expected = flow[:, 0, 1:].reshape(3, 1, 1, *GRID)
    np.testing.assert_allclose(attention, expected.numpy(), atol=TOLERANCE, rtol=0)


def test_the_pass_is_the_same_with_and_without_reading_attention():
    model = random_model("test_vit")
    x_BCHW = random_images(size=(160, 160))
    bound = bind(AttentionMaps(layers=(0, 3, -1)), model, (160, 160))
    with torch.no_grad():
        assert torch.equal(run(model, bound, x_BCHW).logits_BK, model(x_BCHW))


@pytest.mark.parametrize(
    "name", ["resnet18", "convnext_atto", "swin_tiny_patch4_window7_224", "beit_base_patch16_224"]
)
def test_models_whose_attention_is_not_read_say_so(name):
    with pytest.raises(UnsupportedError, match="attention"):
        bind(AttentionMaps(), random_model(name), (224, 224))


def test_class_token_attention_without_class_token_is_refused_with_the_remedy():
    model = random_model("test_vit", class_token=False, global_pool="avg")
    with pytest.raises(ConfigError, match=r"attention\.method=mean_query"):
        bind(AttentionMaps(), model, (160, 160))


@pytest.mark.parametrize("layers", [(6,), (-7,), ()])
def test_blocks_that_there_are_not_are_refused(layers):
    with pytest.raises(ConfigError, match=r"attention\.layers"):
        bind(AttentionMaps(layers=layers), random_model("test_vit"), (160, 160))


def test_the_grid_is_the_models_own_where_patches_are_not_square():
    model = random_model("test_vit", img_size=(224, 224), patch_size=(8, 32))
    x_BCHW = random_images(size=(224, 224))
    attention = compute(model, x_BCHW, AttentionMaps())
    rows = attention_matrices(model, x_BCHW)[-1][:, :, 0, 1:].reshape(3, 1, -1, 28, 7)
    np.testing.assert_allclose(attention, rows.numpy(), atol=TOLERANCE, rtol=0)


def test_norms_of_queries_and_keys_work_in_bf16():
    model = random_model("test_vit", qk_norm=True)
    x_BCHW = random_images(size=(160, 160))
    exact = compute(model, x_BCHW, AttentionMaps())
    bound = bind(AttentionMaps(), model, (160, 160))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = run(model, bound, x_BCHW)
    attention = bound.compute(mixed)["attention"].numpy()
    assert attention.dtype == np.float32
    assert np.corrcoef(attention.ravel(), exact.ravel())[0, 1] > 0.99
