"""Equal to the softmax of timm's own unfused attention."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.binding import bind, random_images, random_model, run
from timm.models.swin_transformer import window_partition
from torch import Tensor, nn

from artifactgen.artifacts import attention_rows
from artifactgen.artifacts.attention import AttentionMaps
from artifactgen.errors import ConfigError, UnsupportedError
from benchmarks.exactness.reference import attention_matrices

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


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("mean_query", {}),
        ("mean_query", {"reg_tokens": 4}),
        ("mean_query", {"class_token": False, "global_pool": "avg"}),
        ("cls", {"class_token": False, "global_pool": "avg"}),
        ("cls", {"global_pool": "avg"}),  # its class token's last row leads to no output
    ],
    ids=str,
)
def test_the_mean_over_patch_rows(method, options):
    model = random_model("test_vit", img_size=SIZE, **options)
    x_BCHW = random_images(size=SIZE)
    bound = bind(AttentionMaps(method=method), model, SIZE)
    assert bound.resolved()["query"] == "mean over patches"
    attention = compute(model, x_BCHW, AttentionMaps(method=method))
    prefix = model.num_prefix_tokens
    matrix = attention_matrices(model, x_BCHW)[-1]
    expected = matrix[:, :, prefix:, prefix:].mean(2).reshape(3, 1, -1, *GRID)
    np.testing.assert_allclose(attention, expected.numpy(), atol=TOLERANCE, rtol=0)


def test_a_rollout_says_through_which_blocks_and_has_no_heads():
    bound = bind(
        AttentionMaps(method="rollout", layers=(0, 3)), random_model("test_vit"), (160, 160)
    )
    assert bound.resolved()["layers"] == [0, 1, 2, 3]
    assert bound.figure.spec.only_map == bound.figure.spec.mean_name == "Rollout"


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
    ("name", "reason"),
    [
        ("resnet18", "ResNet computes no attention"),
        ("convnext_atto", "ConvNeXt computes no attention"),
        ("edgenext_xx_small", r"EdgeNeXt \(CrossCovarianceAttn\) has no weights between positions"),
    ],
)
def test_models_without_attention_to_show_say_so(name, reason):
    with pytest.raises(UnsupportedError, match=reason):
        bind(AttentionMaps(), random_model(name), (64, 64))


def test_a_few_images_at_a_time_give_the_same(monkeypatch):
    model = random_model("test_vit", img_size=SIZE)
    x_BCHW = random_images(size=SIZE)
    for method in ("mean_query", "rollout"):
        options = AttentionMaps(method=method)
        whole = compute(model, x_BCHW, options)
        with monkeypatch.context() as patch:
            patch.setattr(attention_rows, "_CHUNK_BYTES", 1)
            np.testing.assert_allclose(compute(model, x_BCHW, options), whole, atol=1e-7)


def block_diagonal(model: nn.Module, layer: str, x_BCHW: Tensor) -> Tensor:
    """The attention of all positions with one another, (B, A, N, N), zero between windows."""
    block = model.get_submodule(layer)
    (height, width), (window, _), shift = (
        block.input_resolution,
        block.window_size,
        block.shift_size,
    )
    seen = []
    hook = block.attn.softmax.register_forward_hook(lambda _m, _i, out: seen.append(out))
    with torch.no_grad():
        model(x_BCHW)
    hook.remove()
    weights_BWAMN = seen[0].unflatten(0, (len(x_BCHW), -1))
    numbers = torch.arange(height * width).view(1, height, width, 1)
    rolled = torch.roll(numbers, [-s for s in shift], (1, 2))
    positions_WN = window_partition(rolled, (window, window)).flatten(1)
    full = torch.zeros(len(x_BCHW), weights_BWAMN.shape[2], height * width, height * width)
    for index, positions_N in enumerate(positions_WN):
        full[:, :, positions_N[:, None], positions_N[None]] = weights_BWAMN[:, index]
    return full


@pytest.mark.parametrize("index", [0, 1], ids=["regular windows", "shifted windows"])
def test_attention_within_windows_is_the_mean_over_all_queries_of_the_image(index):
    size = (64, 96)
    model = random_model(
        "swin_tiny_patch4_window7_224",
        img_size=size,
        window_size=4,
        depths=(2, 2),
        num_heads=(2, 4),
    )
    x_BCHW = random_images(size=size)
    bound = bind(AttentionMaps(layers=(index,)), model, size)
    attention = bound.compute(run(model, bound, x_BCHW))["attention"].numpy()
    full = block_diagonal(model, f"layers.0.blocks.{index}", x_BCHW)
    np.testing.assert_allclose(full.sum(-1), 1, atol=1e-5)
    expected = full.mean(2).reshape(3, 1, 2, 16, 24)
    np.testing.assert_allclose(attention, expected.numpy(), atol=TOLERANCE, rtol=0)
    assert attention.sum((-2, -1)) == pytest.approx(1, abs=1e-5)


def test_padding_of_windows_is_no_position():
    size = (56, 56)  # 14 × 14 positions in windows of 4 are padded to 16 × 16
    model = random_model(
        "swin_tiny_patch4_window7_224",
        img_size=size,
        window_size=4,
        depths=(2, 2),
        num_heads=(2, 4),
    )
    bound = bind(AttentionMaps(layers=(0,)), model, size)
    attention = bound.compute(run(model, bound, random_images(size=size)))["attention"]
    assert attention.shape[-2:] == (14, 14)
    assert (attention.sum((-2, -1)) < 1).all(), "the rest went to padding"


def test_rollout_through_windows_is_refused_with_the_remedy():
    model = random_model("swin_tiny_patch4_window7_224", img_size=64)
    with pytest.raises(ConfigError, match=r"block 0 .* Set attention\.method=cls or mean_query"):
        bind(AttentionMaps(method="rollout"), model, (64, 64))


def test_blocks_of_different_stages_do_not_go_into_one_array():
    model = random_model("pvt_v2_b0")
    with pytest.raises(ConfigError, match=r"blocks 0 \(1 heads, .*and 7 \(8 heads"):
        bind(AttentionMaps(layers=(0, 7)), model, (64, 64))


def test_attention_pooling_is_not_called_a_class_token():
    model = random_model("test_vit3", img_size=64)
    bound = bind(AttentionMaps(), model, (64, 64))
    assert bound.resolved()["query"] == "pooling query"
    assert bound.sites[-1].path == "attn_pool"


def test_class_attention_after_the_blocks_is_the_last():
    model = random_model("cait_xxs24_224", img_size=64)
    x_BCHW = random_images(size=(64, 64))
    bound = bind(AttentionMaps(), model, (64, 64))
    assert bound.resolved()["query"] == "class token"
    attention = bound.compute(run(model, bound, x_BCHW))["attention"].numpy()
    layer = model.blocks_token_only[-1].attn
    inputs = []
    hook = layer.register_forward_pre_hook(lambda _m, args: inputs.append(args[0]))
    with torch.no_grad():
        model(x_BCHW)
        tokens_BND, shape = (
            inputs[0],
            (3, -1, layer.num_heads, layer.q.in_features // layer.num_heads),
        )
        query = layer.q(tokens_BND[:, :1]).reshape(shape).transpose(1, 2) * layer.scale
        key = layer.k(tokens_BND).reshape(shape).transpose(1, 2)
    hook.remove()
    expected = (query @ key.transpose(2, 3)).softmax(-1)[:, :, 0, 1:].reshape(3, 1, -1, 4, 4)
    np.testing.assert_allclose(attention, expected.numpy(), atol=TOLERANCE, rtol=0)


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


def test_attention_that_is_nearly_even_is_doubted() -> None:
    model = random_model("test_vit", img_size=64)
    bound = bind(AttentionMaps(layers=(0, 1)), model, (64, 64))
    flat = np.full((4, 2, 2, 4, 4), 1 / 17, np.float32)
    flat[..., 0, 0] *= 1.2
    doubts = bound.doubts({"attention": flat})
    assert len(doubts) == 2
    assert doubts[1].startswith("Attention, block 1: nearly even over the image")
    assert "gets 1.2 times the mean" in doubts[1]
    flat[:, 0, 1, 0, 0] *= 10  # one head of a block is enough
    assert [doubt[:18] for doubt in bound.doubts({"attention": flat})] == ["Attention, block 1"]


def test_the_figure_marks_what_every_token_would_get() -> None:
    bound = bind(AttentionMaps(), random_model("test_vit", img_size=64), (64, 64))
    assert bound.figure.spec.tokens == 17  # 4 × 4 patches and the class token
