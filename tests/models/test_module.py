"""Networks of a user's own: what is found of them, and that all of it is exact."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.exactness import (
    calibrated,
    channels_first,
    embeddings,
    images,
    require_same_cam,
    roughen,
    shown_attention,
    subject_of,
    tokens,
)
from helpers.networks import Adapted
from torch.nn.functional import scaled_dot_product_attention

from artifactgen.artifacts.cam.gradcam import GradCAM
from artifactgen.errors import CheckpointError, ConfigError
from artifactgen.introspect.attention import Interceptor
from artifactgen.models.checkpoint import read_checkpoint
from artifactgen.models.file import identify
from artifactgen.models.hooked import HookedNetwork
from artifactgen.models.loading import load_model
from artifactgen.models.module import Module
from artifactgen.models.stated import read_stated

WRAPPED = {"net": {"_target_": "helpers.networks.Tokens", "classes": 4, "depth": 1}}


def build(name: str, **options: Any) -> HookedNetwork:
    torch.manual_seed(0)
    network = Module(target=f"helpers.networks.{name}", num_classes=4, **options).build()
    roughen(network.module)
    return network


def convolutions() -> HookedNetwork:
    return build("Convolutions", image_size=(64, 64))


def transformer() -> HookedNetwork:
    return build("Tokens", kwargs={"classes": 4}, image_size=(64, 64))


def test_a_cnn_is_known_by_one_image() -> None:
    network = convolutions()
    assert network.classifiers == ("out",)
    assert network.traits.last_stage == "body"
    assert network.positions_at == "body"
    assert network.traits.prefix_tokens is None


def test_a_transformer_is_known_by_one_image() -> None:
    network = transformer()
    traits = network.traits
    assert network.classifiers == ("decision",)
    assert (traits.prefix_tokens, traits.patch_grid) == (3, (4, 4))
    assert traits.has_class_token
    assert not traits.pools_patches


def test_embeddings_are_what_arrives_at_the_classifier() -> None:
    network = convolutions()
    model: Any = network.module
    x_BCHW = images((64, 64))
    with torch.no_grad():
        expected = model.body(model.stem(x_BCHW)).mean((2, 3))
    found, logits_BK = embeddings(network)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert logits_BK is not None
    torch.testing.assert_close(logits_BK, model.out(expected), rtol=0, atol=1e-6)


def test_gradcam_equals_pytorch_grad_cam() -> None:
    cnn = require_same_cam(convolutions(), channels_first)
    assert (cnn.layer, cnn.resolved()["route"]) == ("body", "pooled")
    vit = require_same_cam(transformer(), tokens((4, 4), 3))
    assert (vit.layer, vit.resolved()["route"]) == ("stack.1.before", "tail")


def test_attention_of_torchs_own_layer() -> None:
    network = transformer()
    bound, found = shown_attention(network, (0, 1))
    assert [site.path for site in bound.sites] == ["stack.0.mixing", "stack.1.mixing"]
    assert bound.query == "class token"
    model: Any = network.module
    kept: list[torch.Tensor] = []
    for block in model.stack:
        block.before.register_forward_hook(lambda _m, _i, output: kept.append(output))
    with torch.no_grad():
        model(images((64, 64)))
    for index, y in enumerate(kept):
        _, weights = model.stack[index].mixing(y, y, y, average_attn_weights=False)
        expected = weights[:, :, 0, 3:].unflatten(-1, (4, 4)).detach().numpy()
        np.testing.assert_allclose(found[:, index], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": None}, "model.target is not set: which class"),
        ({"target": "Net"}, "name the module as well"),
        ({"target": "nowhere.Net"}, "cannot be imported.*No module named 'nowhere'"),
        (
            {"target": "helpers.networks.Convolution"},
            "no class Convolution. Did you mean",
        ),
        ({"target": "helpers.networks.Any"}, "Any.*cannot be made|gives a"),
        (
            {"target": "helpers.networks.Tokens"},
            "required positional argument: 'classes'",
        ),
        ({"kwargs": {"num_clases": 3}}, r"model\.kwargs\.num_clases.*Did you mean num_classes"),
        ({"kwargs": {"width": "wide"}}, "cannot be made with .*width: wide"),
        ({"classifier": "head"}, "model.classifier=head: Convolutions has no such module.*out"),
        ({"in_chans": 1}, "Its first convolution takes 3: set model.in_chans"),
    ],
)
def test_what_does_not_fit_is_said(options: dict[str, Any], message: str) -> None:
    family = Module(**{"target": "helpers.networks.Convolutions", **options})
    with pytest.raises(ConfigError, match=rf"(?s){message}"):
        family.build()


def test_the_size_of_images_is_asked_for_where_the_network_does_not_say_it() -> None:
    assert Module(target="helpers.networks.Convolutions").input_size() == (64, 64)
    with pytest.raises(ConfigError, match=r"data\.image_size is not set.*Tokens does not say"):
        Module(target="helpers.networks.Tokens", kwargs={"classes": 2}).input_size()


def test_an_argument_may_be_an_object_of_its_own() -> None:
    network = build("Wrapped", kwargs=WRAPPED, image_size=(64, 64))
    assert network.classifiers == ("net.decision",)
    assert require_same_cam(network, tokens((4, 4), 3)).layer == "net.stack.0.before"


def test_what_hyper_parameters_name_is_not_called(tmp_path: Path) -> None:
    """The checkpoint holds plain values alone: `weights_only` lets them pass."""
    trace, file = tmp_path / "ran", tmp_path / "hostile.ckpt"
    hostile = {"_target_": "subprocess.getoutput", "cmd": f"touch {trace}"}
    weights = build("Wrapped", kwargs=WRAPPED, image_size=(64, 64)).module.state_dict()
    torch.save({"state_dict": weights, "hyper_parameters": {"net": [{"deep": hostile}]}}, file)
    checkpoint = read_checkpoint(identify(file))
    family = Module(target="helpers.networks.Wrapped", image_size=(64, 64))
    with pytest.raises(CheckpointError, match=r"(?s)subprocess\.getoutput.*model\.kwargs \(net"):
        load_model(family, checkpoint, stated=read_stated(checkpoint, family))
    assert not trace.exists()
    told = dataclasses.replace(family, kwargs=WRAPPED)
    assert load_model(told, checkpoint, stated=read_stated(checkpoint, told)).audit.fits


def test_a_network_without_a_classifier_gives_embeddings() -> None:
    family = Module(target="helpers.networks.Embedding", image_size=(32, 32))
    with pytest.raises(ConfigError, match=r"(?s)which layer is the classifier.*num_classes=0"):
        family.build()
    network = dataclasses.replace(family, num_classes=0).build()
    found, logits_BK = embeddings(network)
    assert logits_BK is None
    torch.testing.assert_close(found, network.module(images((32, 32))))


def test_a_classifier_of_several_layers_is_found_at_its_last_or_named(tmp_path: Path) -> None:
    last = build("Perceptron", image_size=(64, 64))
    assert last.classifiers == ("out.2",)
    assert embeddings(last)[0].shape == (3, 9)
    named = Module(target="helpers.networks.Perceptron", classifier="out", image_size=(64, 64))
    torch.save(roughen(named.build().module).state_dict(), tmp_path / "weights.pt")
    loaded = load_model(named, read_checkpoint(identify(tmp_path / "weights.pt")))
    assert (loaded.has_head, loaded.network.family.num_classes) == (True, 4)
    model: Any = loaded.network.module
    with torch.no_grad():
        expected = model.body(model.stem(images((64, 64)))).mean((2, 3))
    torch.testing.assert_close(embeddings(loaded.network)[0], expected, rtol=0, atol=1e-6)
    assert require_same_cam(loaded.network, channels_first).resolved()["route"] == "tail"


@pytest.mark.parametrize("joined", [True, False])
def test_a_layer_that_does_not_alone_decide_is_no_classifier(joined: bool) -> None:
    """Not even the last one that is called, with as many outputs."""
    kwargs = {"joined": joined}
    family = Module(target="helpers.networks.Combined", kwargs=kwargs, image_size=(64, 64))
    with pytest.raises(ConfigError, match=r"(?s)which layer is the classifier.*out, beside"):
        family.build()
    assert dataclasses.replace(family, classifier="out").build().classifiers == ("out",)


def test_adapters_are_not_merged_before_they_are_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trained, x_BCHW = roughen(Adapted()), images((64, 64))
    torch.save(trained.state_dict(), tmp_path / "weights.pt")
    family = Module(target="helpers.networks.Adapted", classifier="out")
    loaded = load_model(family, read_checkpoint(identify(tmp_path / "weights.pt")))
    with torch.no_grad():
        expected = trained.eval()(x_BCHW)
    torch.testing.assert_close(embeddings(loaded.network)[1], expected, rtol=0, atol=1e-5)


def test_the_classifier_has_as_many_outputs_as_that_of_the_checkpoint(tmp_path: Path) -> None:
    trained = build("Convolutions", kwargs={"num_classes": 3}, image_size=(64, 64))
    assert trained.outputs == 4, "what is asked for"
    torch.save(trained.module.state_dict(), tmp_path / "weights.pt")
    family = Module(target="helpers.networks.Convolutions", kwargs={"num_classes": 9})
    loaded = load_model(family, read_checkpoint(identify(tmp_path / "weights.pt")))
    assert loaded.network.family.num_classes == 4
    torch.testing.assert_close(embeddings(loaded.network)[1], embeddings(trained)[1])


def test_a_layer_that_has_no_positions_is_answered_with_those_that_have() -> None:
    subject, x_BCHW = subject_of(transformer()), images((64, 64))
    with pytest.raises(ConfigError, match=r"(?s)=decision: .*be: stack.1.before, "):
        calibrated(subject, GradCAM(layer="decision"), x_BCHW)


@pytest.mark.parametrize("averaged", [True, False])
def test_a_layer_that_asks_for_its_weights_still_gets_them(averaged: bool) -> None:
    layer = torch.nn.MultiheadAttention(8, 2, batch_first=True).eval()
    x, options = torch.randn(3, 5, 8), {"average_attn_weights": averaged}
    with torch.inference_mode():
        expected = layer(x, x, x, **options)
        interceptor = Interceptor()
        interceptor.listen()
        found = layer(x, x, x, **options)
        (call,) = interceptor.heard()
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert call.shape == (3, 2, 5, 5)


def test_causal_attention_is_read_as_it_is_computed() -> None:
    query = torch.randn(1, 2, 4, 8)
    interceptor = Interceptor()
    interceptor.listen()
    output = scaled_dot_product_attention(query, query, query, is_causal=True)
    (call,) = interceptor.heard()
    torch.testing.assert_close(call.weights() @ query, output)
