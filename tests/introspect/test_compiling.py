"""Compiled parts of a model: maps are the same as without."""

from __future__ import annotations

import functools

import pytest
import torch

from artifactgen.artifacts.base import Subject
from artifactgen.artifacts.cam.routes import make_route
from artifactgen.artifacts.cam.target_layer import find_target_layer
from artifactgen.introspect.compiling import compile_parts
from artifactgen.introspect.forward import forward
from artifactgen.models.timm import as_network
from benchmarks.exactness.reference import random_images, random_model

SIZE = (160, 160)
CLASSES = tuple("abcdefg")


@pytest.mark.parametrize(
    ("name", "options", "route"),
    [
        ("test_vit", {}, "class_token"),
        ("test_vit", {"global_pool": "avg"}, "tail"),
        ("convnext_atto", {}, "pooled"),
    ],
)
def test_every_route_goes_back_through_compiled_parts(name, options, route, monkeypatch):
    # Without a C++ compiler; what autograd meets is the same.
    compile_ = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", compile_)
    subject = Subject(
        as_network(random_model(name, classes=7, **options)), SIZE, CLASSES, has_head=True
    )
    route = make_route(route, subject, find_target_layer(subject))
    x_BCHW = random_images(2, size=SIZE)
    every_K = torch.arange(7)

    def cams():
        return route.cams(forward(subject.network, x_BCHW, taps=route.taps, classify=True), every_K)

    expected = cams()
    assert compile_parts(subject.model, route.taps)
    torch.testing.assert_close(cams(), expected, rtol=0, atol=1e-5 * float(expected.max()))
