"""The model is left as it was, and the caller's context does not matter."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from helpers.binding import random_images, random_model
from helpers.networks import Adapted
from torch import nn

from artifactgen import Explainer
from artifactgen.device import exact_float32
from artifactgen.explainer.explanation import Explanation

IMAGES = random_images(2, size=(64, 64))
NAMES = ("resnet18", "test_vit")


def trained(name: str) -> nn.Module:
    """A model in the middle of a training: some of it frozen, with gradients, a hook of its own."""
    size = {"img_size": 64} if name == "test_vit" else {}
    model = random_model(name, **size).train()
    for index, (_, parameter) in enumerate(model.named_parameters()):
        parameter.requires_grad_(index % 3 > 0)
    next(model.children()).eval()
    model(IMAGES).sum().backward()
    model.register_forward_hook(lambda *_: None)
    return model


def state(model: nn.Module) -> list[Any]:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [
        [(p.requires_grad, p.dtype, p.data_ptr(), p.stride()) for p in model.parameters()],
        [None if p.grad is None else p.grad.tolist() for p in model.parameters()],
        [(b.dtype, b.data_ptr(), b.tolist()) for b in model.buffers()],
        [p.detach().tolist() for p in model.parameters()],
        [(m.training, [len(getattr(m, hook)) for hook in hooks]) for m in model.modules()],
        list(model.named_modules()),
        [torch.get_float32_matmul_precision(), torch.is_grad_enabled()],
    ]


@pytest.mark.parametrize("name", NAMES)
def test_after_a_call_and_after_an_exception_it_is_as_it_was(name: str) -> None:
    model = trained(name)
    before = state(model)
    explain = Explainer(model, batch_size=1)
    explain(IMAGES)
    assert state(model) == before
    last = list(model.modules())[-1]

    def fail(*_: object) -> None:
        raise RuntimeError("out of luck")

    hook = last.register_forward_hook(fail)
    for explainer in (explain, Explainer(model)):  # in the pass, and while it is looked into
        with pytest.raises(RuntimeError, match="out of luck"):
            explainer(IMAGES)
    hook.remove()
    assert state(model) == before
    torch.testing.assert_close(explain(IMAGES).logits, Explainer(model)(IMAGES).logits)


@pytest.mark.parametrize("classifier", ["out", "none"])
def test_adapters_are_not_merged(classifier: str) -> None:
    """As `eval()` would do it, for good."""
    model = Adapted().train()
    before = state(model)
    Explainer(model, classifier=classifier)(IMAGES)
    assert (state(model), model.merged) == (before, False)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_weights_of_another_type_are_put_back_themselves(name: str, dtype: torch.dtype) -> None:
    model = trained(name).to(dtype)
    before = state(model)
    x = Explainer(model)(IMAGES.to(dtype))
    assert state(model) == before
    expected = Explainer(model.float())(IMAGES.to(dtype))
    for kind in ("embeddings", "logits", "gradcam"):
        assert getattr(x, kind).dtype == torch.float32
        torch.testing.assert_close(getattr(x, kind), getattr(expected, kind))


CONTEXTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "no_grad": torch.no_grad,
    "enable_grad": torch.enable_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("name", NAMES)
def test_inside_of_any_context_it_gives_the_same(name: str, context: str) -> None:
    model = trained(name)
    expected = Explainer(model)(IMAGES)
    with CONTEXTS[context]():
        images = IMAGES * 1  # made in inference mode, it could not be part of a graph
        x = Explainer(model)(images)
    assert_same(x, expected)
    assert not x.gradcam.requires_grad


def test_a_gradient_that_the_images_ask_for_is_not_made() -> None:
    images = IMAGES.clone().requires_grad_()
    assert_same(Explainer(trained("resnet18"))(images), Explainer(trained("resnet18"))(IMAGES))
    assert images.grad is None


def test_images_may_be_written_over_afterwards() -> None:
    images = IMAGES.clone()
    x = Explainer(trained("resnet18"))(images)
    before = x.images
    images.zero_()
    assert (x.images == before).all()


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile], ids=["parallel", "compile"])
def test_what_only_surrounds_a_model_is_looked_through(wrap: Any) -> None:
    model = random_model("resnet18")
    assert_same(Explainer(wrap(model))(IMAGES), Explainer(model)(IMAGES))


def test_calls_from_threads_wait_for_each_other() -> None:
    model = trained("test_vit")
    before, explain = state(model), Explainer(model)
    expected, found = explain(IMAGES), []

    def call() -> None:
        found.append(explain(IMAGES))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for x in found:
        assert_same(x, expected)
    assert state(model) == before


def test_float32_is_exact_and_afterwards_as_it_was() -> None:
    torch.set_float32_matmul_precision("medium")
    cudnn: Any = torch.backends.cudnn
    before = cudnn.conv.fp32_precision
    try:
        with pytest.raises(ZeroDivisionError):
            fail_in_float32()
        assert torch.get_float32_matmul_precision() == "medium"
        assert cudnn.conv.fp32_precision == before
    finally:
        torch.set_float32_matmul_precision("highest")


def fail_in_float32() -> None:
    cudnn: Any = torch.backends.cudnn
    with exact_float32():
        assert torch.get_float32_matmul_precision() == "highest"
        assert cudnn.conv.fp32_precision == "ieee"
        raise ZeroDivisionError


def assert_same(found: Explanation, expected: Explanation) -> None:
    assert found.missing == expected.missing
    for kind in {"embeddings", "logits", "gradcam", "attention"} - found.missing.keys():
        torch.testing.assert_close(
            getattr(found, kind), getattr(expected, kind), rtol=1e-4, atol=1e-6
        )
