from __future__ import annotations

import pytest
import torch
from helpers.binding import random_images, random_model
from torch import nn
from torch.nn import functional
from torch.nn.functional import scaled_dot_product_attention

from artifactgen.errors import ConfigError
from artifactgen.introspect.attention import AttentionCall, attention_call
from artifactgen.introspect.forward import forward
from artifactgen.introspect.taps import Taps
from artifactgen.models.timm import as_network


def hooks_of(model: nn.Module) -> int:
    return sum(
        len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks)
        for m in model.modules()
    )


def test_the_model_runs_once_and_everything_comes_of_that_pass():
    model = random_model("test_vit")
    calls = []
    model.patch_embed.register_forward_hook(lambda *_: calls.append(1))
    taps = Taps(outputs=("blocks.0.attn.qkv",), gradients=("blocks.5.norm1",))
    run = forward(as_network(model), random_images(size=(160, 160)), taps=taps, classify=True)
    assert calls == [1]
    assert set(run.outputs) == {"blocks.0.attn.qkv", "blocks.5.norm1"}


def test_no_hook_and_no_gradient_is_left():
    model = random_model("test_vit")
    taps = Taps(outputs=("blocks.0.attn.qkv",), gradients=("blocks.5.norm1",))
    run = forward(as_network(model), random_images(size=(160, 160)), taps=taps, classify=True)
    torch.autograd.grad(run.logits_BK.sum(), run.outputs["blocks.5.norm1"])
    assert hooks_of(model) == 0
    assert all(parameter.grad is None for parameter in model.parameters())


def test_no_hook_outlives_an_exception():
    model = random_model("test_vit")

    def fail(*_):
        raise RuntimeError("in the middle of the pass")

    broken = model.blocks[3].register_forward_pre_hook(fail)
    taps = Taps(outputs=("blocks.0",), gradients=("blocks.2.norm1",))
    with pytest.raises(RuntimeError, match="in the middle"):
        forward(as_network(model), random_images(size=(160, 160)), taps=taps, classify=True)
    broken.remove()
    assert hooks_of(model) == 0


def test_only_what_is_behind_the_tap_has_a_graph():
    model = random_model("test_vit")
    taps = Taps(outputs=("blocks.0.attn.qkv",), gradients=("blocks.5.norm1",))
    run = forward(as_network(model), random_images(size=(160, 160)), taps=taps, classify=True)
    assert run.outputs["blocks.5.norm1"].is_leaf
    assert not run.outputs["blocks.0.attn.qkv"].requires_grad
    assert not run.features.requires_grad
    assert not run.pre_logits_BD.requires_grad


def test_without_gradients_there_is_no_graph_at_all():
    model = random_model("test_vit")
    run = forward(as_network(model), random_images(size=(160, 160)), taps=Taps(), classify=True)
    assert not run.logits_BK.requires_grad


def test_an_earlier_tap_keeps_its_gradient_when_a_later_one_is_tapped_too():
    model = random_model("test_vit")
    x_BCHW = random_images(size=(160, 160))

    def gradient(*paths: str) -> torch.Tensor:
        run = forward(as_network(model), x_BCHW, taps=Taps(gradients=paths), classify=True)
        return torch.autograd.grad(run.logits_BK[:, 1].sum(), run.outputs["blocks.2.norm1"])[0]

    alone = gradient("blocks.2.norm1")
    assert alone.any()
    assert torch.equal(gradient("blocks.2.norm1", "blocks.5.norm1"), alone)


def test_an_in_place_activation_behind_the_tap_does_not_spoil_it():
    model = random_model("resnet18")
    x_BCHW = random_images(size=(64, 64))
    expected = []
    hook = model.bn1.register_forward_hook(lambda _m, _i, out: expected.append(out.clone()))
    model(x_BCHW)
    hook.remove()
    run = forward(
        as_network(model), x_BCHW, taps=Taps(gradients=("bn1",)), classify=True
    )  # act1 is in place
    assert torch.equal(run.outputs["bn1"], expected[0])
    assert torch.autograd.grad(run.logits_BK.sum(), run.outputs["bn1"])[0].any()


def test_a_model_without_classifier_gives_no_logits():
    model = random_model("test_vit")
    run = forward(as_network(model), random_images(size=(160, 160)), taps=Taps(), classify=False)
    assert run.logits_BK is None


@pytest.mark.parametrize("path", ["blocks.1.attn.attn_drop", "blocks.1.attn.qkv.nothing"])
def test_a_layer_that_gives_nothing_is_refused(path):
    model = random_model("test_vit")
    model.blocks[1].attn.qkv.add_module("nothing", nn.Identity())
    for taps in (Taps(outputs=(path,)), Taps(gradients=(path,))):
        with pytest.raises(ConfigError, match="gives no tensor"):
            forward(as_network(model), random_images(size=(160, 160)), taps=taps, classify=True)
    assert hooks_of(model) == 0


def class_row(call: AttentionCall) -> torch.Tensor:
    return call.weights(slice(0, 1))


def everything(call: AttentionCall) -> torch.Tensor:
    return call.weights()


def test_without_gradients_all_of_it_is_inference():
    model = random_model("test_vit")
    taps = Taps(outputs=("blocks.5.norm1",), attention=(("blocks.5.attn", class_row),))
    run = forward(as_network(model), random_images(size=(160, 160)), taps=taps, classify=True)
    kept = [run.logits_BK, run.outputs["blocks.5.norm1"], run.attention["blocks.5.attn", class_row]]
    assert all(tensor.is_inference() for tensor in kept)


def test_readers_share_what_a_layer_computes():
    model = random_model("test_vit")
    taps = Taps(attention=(("blocks.2.attn", class_row), ("blocks.2.attn", everything)))
    run = forward(as_network(model), random_images(size=(160, 160)), taps=taps, classify=True)
    whole = run.attention["blocks.2.attn", everything]
    assert whole.shape == (3, 2, 101, 101)
    torch.testing.assert_close(run.attention["blocks.2.attn", class_row], whole[:, :, :1])


def interceptors_in_force() -> int:
    return len(torch.overrides._get_current_function_mode_stack())


@pytest.mark.parametrize("place", ["blocks.3.attn.proj", "blocks.4", "head"])
def test_no_interception_outlives_an_exception(place):
    model = random_model("test_vit")

    def fail(*_):
        assert interceptors_in_force() == 1
        raise RuntimeError("in the middle")

    broken = model.get_submodule(place).register_forward_pre_hook(fail)
    taps = Taps(attention=(("blocks.3.attn", class_row),), gradients=("blocks.2.norm1",))
    with pytest.raises(RuntimeError, match="in the middle"):
        forward(as_network(model), random_images(size=(160, 160)), taps=taps, classify=True)
    broken.remove()
    assert hooks_of(model) == interceptors_in_force() == 0
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    assert not torch.is_autocast_enabled("cpu")


def test_functions_are_intercepted_only_where_attention_is_read():
    model = random_model("test_vit")
    seen = {}
    for path in ("blocks.2.attn.proj", "blocks.3.attn.proj", "blocks.4.attn.proj"):
        layer = model.get_submodule(path)
        layer.register_forward_hook(
            lambda *_, path=path: seen.update({path: interceptors_in_force()})
        )
    taps = Taps(attention=(("blocks.3.attn", class_row),))
    forward(as_network(model), random_images(size=(160, 160)), taps=taps, classify=True)
    assert seen == {"blocks.2.attn.proj": 0, "blocks.3.attn.proj": 1, "blocks.4.attn.proj": 0}


def test_a_graph_may_start_within_attention_that_is_read():
    model = random_model("test_vit")
    x_BCHW = random_images(size=(160, 160))
    taps = Taps(attention=(("blocks.3.attn", class_row),), gradients=("blocks.3.attn.proj",))
    with torch.autocast("cpu", torch.bfloat16):
        run = forward(as_network(model), x_BCHW, taps=taps, classify=True)
    assert run.attention["blocks.3.attn", class_row].dtype == torch.float32
    assert run.logits_BK.dtype == torch.float32
    (gradient,) = torch.autograd.grad(run.logits_BK.sum(), run.outputs["blocks.3.attn.proj"])
    assert gradient.any()
    assert interceptors_in_force() == 0


def test_a_layer_that_computes_no_attention_is_refused():
    model = random_model("test_vit")
    with pytest.raises(ConfigError, match=r"blocks\.1\.mlp computes no attention"):
        forward(
            as_network(model),
            random_images(size=(160, 160)),
            taps=Taps(attention=(("blocks.1.mlp", class_row),)),
            classify=True,
        )


def test_inputs_are_those_of_the_layer():
    model = random_model("test_vit")
    x_BCHW = random_images(size=(160, 160))
    taps = Taps(inputs=("head",))
    run = forward(as_network(model), x_BCHW, taps=taps, classify=True)
    assert torch.equal(run.inputs["head"], run.pre_logits_BD)


def softmax_of(*arguments, **options) -> torch.Tensor:
    call = attention_call(scaled_dot_product_attention, arguments, options, None)
    return call.weights()


@pytest.mark.parametrize("kind", ["none", "bias", "mask", "scale", "one key for all heads"])
def test_what_is_read_of_fused_attention_is_what_it_computes(kind):
    generator = torch.Generator().manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 5, 8, generator=generator)
    options = {
        "bias": {"attn_mask": torch.randn(4, 5, 5, generator=generator)},
        "mask": {"attn_mask": torch.rand(2, 1, 5, 5, generator=generator) > 0.3},
        "scale": {"scale": 0.7},
    }.get(kind, {})
    if kind == "mask":
        options["attn_mask"][..., 0] = True
    if kind == "one key for all heads":
        key, value = key[:, :1], value[:, :1]
    expected = scaled_dot_product_attention(query, key, value, **options)
    weights = softmax_of(query, key, value, **options)
    torch.testing.assert_close(weights @ value, expected, atol=1e-6, rtol=1e-5)
    part = attention_call(scaled_dot_product_attention, (query, key, value), options, None)
    torch.testing.assert_close(part.weights(slice(1, 3), slice(1, 2)), weights[1:2, :, 1:3])


def test_a_softmax_over_something_else_is_no_attention():
    x = torch.randn(2, 3, 4, 5)
    assert (
        attention_call(functional.softmax, (x,), {"dim": 1}, functional.softmax(x, dim=1)) is None
    )
    assert attention_call(torch.softmax, (x, -1), {}, torch.softmax(x, -1)).shape == x.shape
    flat = torch.randn(2, 3)
    assert attention_call(torch.Tensor.softmax, (flat, 1), {}, flat.softmax(1)) is None
