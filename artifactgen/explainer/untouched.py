"""A model of somebody else, used for a moment and left as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from artifactgen.device import exact_float32


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Inside: eval mode, float32, weights without gradients, whatever the caller's context is.

    Afterwards all of it is as it was, also after an exception. Weights of half precision are
    computed with in float32, as a checkpoint's would be.
    """
    with ExitStack() as stack:
        # Of the caller's: inference mode would forbid the graph behind a tapped layer.
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.autocast(device_of(model).type, enabled=False))
        stack.enter_context(exact_float32())
        stack.enter_context(_evaluating(model))
        stack.enter_context(_without_gradients(model))
        stack.enter_context(_in_float32(model))
        yield


def device_of(model: nn.Module) -> torch.device:
    """Where the weights are; of a model without any, the CPU."""
    tensor = next(model.parameters(), next(model.buffers(), None))
    return torch.device("cpu") if tensor is None else tensor.device


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    # By each module's flag: `eval()` may do more, such as to merge adapters into the weights.
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = False
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _without_gradients(model: nn.Module) -> Iterator[None]:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)


@contextmanager
def _in_float32(model: nn.Module) -> Iterator[None]:
    """Other floating types as float32; the tensors of before are put back, not converted."""
    weights = [(p, p.data) for p in model.parameters() if _is_other_float(p)]
    buffers = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
        if _is_other_float(buffer)
    ]
    try:
        for parameter, data in weights:
            parameter.data = data.float()
        for module, name, buffer in buffers:
            module._buffers[name] = buffer.float()
        yield
    finally:
        for parameter, data in weights:
            parameter.data = data
        for module, name, buffer in buffers:
            module._buffers[name] = buffer


def _is_other_float(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dtype != torch.float32
