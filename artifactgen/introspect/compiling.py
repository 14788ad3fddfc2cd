"""`torch.compile` for a model that is looked into while it runs.

Hooks and compiled code do not go together. So what is compiled are the parts in which nothing is
tapped, each by itself, as PyTorch recommends for networks of repeated blocks:
https://docs.pytorch.org/tutorials/recipes/regional_compilation.html
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from artifactgen.introspect.taps import Taps


def compile_parts(model: nn.Module, taps: Taps) -> list[str]:
    """Compile the largest parts of a model that have no tap inside; their module paths.

    Inputs then need a fixed shape: every other one is compiled anew.
    """
    around = {ancestor for path in taps.paths for ancestor in _ancestors(path)}
    listening = {path for path, _ in taps.attention}
    parts = list(_parts(model, "", around, listening))
    for path in parts:
        part = model.get_submodule(path)
        # Not the call itself, so that hooks on the part are still called outside of it.
        part.forward = torch.compile(part.forward, dynamic=False)
    return parts


def _ancestors(path: str) -> Iterator[str]:
    """`blocks.11` and `blocks` of `blocks.11.norm1`."""
    while path := path.rpartition(".")[0]:
        yield path


def _parts(module: nn.Module, path: str, around: set[str], listening: set[str]) -> Iterator[str]:
    """Children with children of their own: a single layer gains nothing."""
    for name, child in module.named_children():
        inner = f"{path}.{name}" if path else name
        if inner in listening:
            continue
        if inner in around or isinstance(child, nn.ModuleList):
            yield from _parts(child, inner, around, listening)
        elif any(True for _ in child.children()) and any(True for _ in child.parameters()):
            yield inner
