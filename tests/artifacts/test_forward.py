from __future__ import annotations

import pytest
import torch
from helpers import random_images, random_model
from torch import nn

from artifactgen.artifacts.forward import Taps, forward
from artifactgen.errors import ConfigError


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
    run = forward(model, random_images(size=(160, 160)), taps=taps, classify=True)
    assert calls == [1]
    assert set(run.outputs) == {"blocks.0.attn.qkv", "blocks.5.norm1"}


def test_no_hook_and_no_gradient_is_left():
    model = random_model("test_vit")
    taps = Taps(outputs=("blocks.0.attn.qkv",), gradients=("blocks.5.norm1",))
    run = forward(model, random_images(size=(160, 160)), taps=taps, classify=True)
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
        forward(model, random_images(size=(160, 160)), taps=taps, classify=True)
    broken.remove()
    assert hooks_of(model) == 0


def test_only_what_is_behind_the_tap_has_a_graph():
    model = random_model("test_vit")
    taps = Taps(outputs=("blocks.0.attn.qkv",), gradients=("blocks.5.norm1",))
    run = forward(model, random_images(size=(160, 160)), taps=taps, classify=True)
    assert run.outputs["blocks.5.norm1"].is_leaf
    assert not run.outputs["blocks.0.attn.qkv"].requires_grad
    assert not run.features.requires_grad
    assert not run.pre_logits_BD.requires_grad


def test_without_gradients_there_is_no_graph_at_all():
    model = random_model("test_vit")
    run = forward(model, random_images(size=(160, 160)), taps=Taps(), classify=True)
    assert not run.logits_BK.requires_grad


def test_an_earlier_tap_keeps_its_gradient_when_a_later_one_is_tapped_too():
    model = random_model("test_vit")
    x_BCHW = random_images(size=(160, 160))

    def gradient(*paths: str) -> torch.Tensor:
        run = forward(model, x_BCHW, taps=Taps(gradients=paths), classify=True)
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
    run = forward(model, x_BCHW, taps=Taps(gradients=("bn1",)), classify=True)  # act1 is in place
    assert torch.equal(run.outputs["bn1"], expected[0])
    assert torch.autograd.grad(run.logits_BK.sum(), run.outputs["bn1"])[0].any()


def test_a_model_without_classifier_gives_no_logits():
    model = random_model("test_vit")
    run = forward(model, random_images(size=(160, 160)), taps=Taps(), classify=False)
    assert run.logits_BK is None


@pytest.mark.parametrize("path", ["blocks.1.attn.attn_drop", "blocks.1.attn.qkv.nothing"])
def test_a_layer_that_gives_nothing_is_refused(path):
    model = random_model("test_vit")
    model.blocks[1].attn.qkv.add_module("nothing", nn.Identity())
    for taps in (Taps(outputs=(path,)), Taps(gradients=(path,))):
        with pytest.raises(ConfigError, match="gives no tensor"):
            forward(model, random_images(size=(160, 160)), taps=taps, classify=True)
    assert hooks_of(model) == 0
