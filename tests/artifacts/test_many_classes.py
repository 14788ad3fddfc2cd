"""More classes than features: the closed forms go by feature and still agree with autograd."""

from __future__ import annotations

import pytest
import torch

from artifactgen.artifacts.base import Subject
from artifactgen.artifacts.cam.autograd import Autograd
from artifactgen.artifacts.cam.routes import CLOSED_FORMS, make_route
from artifactgen.artifacts.cam.target_layer import find_target_layer
from artifactgen.introspect.forward import Pass, forward
from artifactgen.introspect.taps import Taps
from artifactgen.models.timm import as_network
from benchmarks.exactness.reference import random_images, random_model

SIZE = (160, 160)
MODELS = {"test_vit": "class_token", "resnet10t": "pooled", "convnext_atto": "pooled"}
CLASSES = 600
"""More than any of them has features."""


@pytest.mark.parametrize(("name", "route"), MODELS.items())
def test_closed_forms_meet_autograd(name, route):
    model = random_model(name, classes=CLASSES)
    assert model.num_features < CLASSES
    subject = Subject(as_network(model), SIZE, tuple(map(str, range(CLASSES))), has_head=True)
    layer = find_target_layer(subject)
    closed, tail = make_route(route, subject, layer), Autograd(subject, layer)
    assert isinstance(closed, CLOSED_FORMS[route])
    forward_pass = _run(subject, Taps.union([closed.taps, tail.taps]))
    all_K = torch.arange(CLASSES)
    some = slice(None, None, 100)
    expected = tail.cams(forward_pass, all_K[some])
    found = closed.cams(forward_pass, all_K)
    assert found.shape[1] == CLASSES
    atol = 1e-5 * float(expected.max())
    torch.testing.assert_close(found[:, some], expected, rtol=0, atol=atol)
    torch.testing.assert_close(closed.cams(forward_pass, all_K[some]), expected, rtol=0, atol=atol)


@pytest.mark.parametrize(("name", "route"), MODELS.items())
def test_each_image_may_have_classes_of_its_own(name, route):
    model = random_model(name, classes=CLASSES)
    subject = Subject(as_network(model), SIZE, tuple(map(str, range(CLASSES))), has_head=True)
    layer = find_target_layer(subject)
    closed, tail = make_route(route, subject, layer), Autograd(subject, layer)
    forward_pass = _run(subject, Taps.union([closed.taps, tail.taps]))
    own_BK = torch.tensor([[3, 500], [77, 3], [599, 0]])
    expected = tail.cams(forward_pass, own_BK)
    atol = 1e-5 * float(expected.max())
    torch.testing.assert_close(closed.cams(forward_pass, own_BK), expected, rtol=0, atol=atol)


def _run(subject: Subject, taps: Taps) -> Pass:
    return forward(subject.network, random_images(3, size=SIZE), taps=taps, classify=True)
