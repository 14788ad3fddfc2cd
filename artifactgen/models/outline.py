"""What one image tells of a network of which nothing is known: its classifier, grid and tokens.

No names are looked for. Which layer gives the logits shows in where they lie in memory; which
tokens the classifier is fed with shows in a gradient.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor, nn

from artifactgen.models.arriving import is_linear, last_seen
from artifactgen.models.base import Traits
from artifactgen.models.shape import aspect_grid, has_form

Call = Callable[[Tensor], Tensor]
"""A network: normalised images to logits."""

_TRIED = 8
"""Of the last layers that have a grid, how many are tried for one that the classifier sees."""
_LIKE_A_PATCH = 1.5
"""A first token that counts no more than this times as much as a patch is pooled like one."""


@dataclass(frozen=True, slots=True)
class Outline:
    """What is found of a network."""

    classifiers: tuple[str, ...]
    """Module paths of the linear layers that give the logits, or whose average they are."""
    outputs: int
    traits: Traits
    positions_at: str | None
    """Module path of the last layer of which positions of the image reach the classifier."""


class _Step(NamedTuple):
    """A layer that has given a tensor."""

    path: str
    shape: tuple[int, ...]
    output: Tensor | None
    """Kept of linear layers."""


@dataclass(frozen=True, slots=True)
class _Run:
    """One image on its way through a network."""

    module: nn.Module
    image_size: tuple[int, int]
    steps: list[_Step] = field(default_factory=list)
    began: dict[str, int] = field(default_factory=dict)
    """Module path to how many steps were done when it was called last."""

    def layer(self, path: str) -> nn.Module:
        return self.module.get_submodule(path)


def outline(
    call: Call, module: nn.Module, x_BCHW: Tensor, *, classifiers: Sequence[str] = ()
) -> Outline:
    """Look into a network that has weights, be they random; no hook stays.

    Args:
        call: the network, as it is asked for logits.
        module: the same, to look into.
        x_BCHW: one image.
        classifiers: module paths of its classifiers where they are known; else they are found.
    """
    height, width = x_BCHW.shape[-2:]
    run = _Run(module, (height, width))
    logits_BK = _run(run, call, x_BCHW)
    found = (
        tuple(classifiers)
        or _classifiers(run, logits_BK)
        or _decisive(run, logits_BK, call, x_BCHW)
    )
    patches = _patch_grid(run)
    prefix = _prefix_tokens(run, patches)
    traits = Traits(
        prefix_tokens=prefix,
        has_class_token=bool(prefix),
        channels_last=_is_channels_last(run),
        patch_grid=patches,
    )
    candidates = _with_grid(run, found, traits)
    position, gradient = last_seen(call, module, x_BCHW, found, candidates)
    traits = _with_pooling(traits, position, gradient)
    return Outline(found, logits_BK.shape[-1], traits, position)


def _run(run: _Run, call: Call, x_BCHW: Tensor) -> Tensor:
    def before(path: str) -> Callable[..., None]:
        return lambda *_: run.began.update({path: len(run.steps)})

    def after(path: str, keep: bool) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: object, output: object) -> None:
            if isinstance(output, Tensor):
                run.steps.append(_Step(path, tuple(output.shape), output if keep else None))

        return hook

    with ExitStack() as stack, torch.no_grad():
        for path, layer in run.module.named_modules():
            if path:
                stack.callback(layer.register_forward_pre_hook(before(path)).remove)
                hook = after(path, is_linear(layer))
                stack.callback(layer.register_forward_hook(hook).remove)
        return call(x_BCHW)


def _classifiers(run: _Run, logits_BK: Tensor) -> tuple[str, ...]:
    """The linear layers that give the logits; none where that is not certain."""
    of_size = [
        step
        for step in run.steps
        if step.output is not None and step.output.numel() % logits_BK.shape[-1] == 0
    ]
    for step in reversed(of_size):
        if _is_same(step.output, logits_BK):
            return (step.path,)
    alike = [step for step in of_size if step.shape == logits_BK.shape]
    if len(alike) > 1 and torch.allclose(_mean(alike), logits_BK, rtol=1e-4, atol=1e-6):
        return tuple(step.path for step in alike)
    return ()


def _decisive(run: _Run, logits_BK: Tensor, call: Call, x_BCHW: Tensor) -> tuple[str, ...]:
    """The last layer with weights, where a softmax or a scale makes the logits of what it gives.

    And of nothing else: with its output put in the place of its own, another image has the same.
    """
    last = next((s for s in reversed(run.steps) if _has_weights(run.layer(s.path))), None)
    if last is None or last.output is None:
        return ()
    layer = run.layer(last.path)
    with layer.register_forward_hook(lambda *_: last.output), torch.no_grad():
        others_BK = call(-2 * x_BCHW)
    decides = _outputs(layer) == logits_BK.shape[-1] and torch.allclose(others_BK, logits_BK)
    return (last.path,) if decides else ()


def _is_same(output: Tensor | None, logits_BK: Tensor) -> bool:
    """Whether they are one piece of memory, under whatever shape."""
    assert output is not None
    return output.data_ptr() == logits_BK.data_ptr() and output.numel() == logits_BK.numel()


def _mean(steps: Sequence[_Step]) -> Tensor:
    return torch.stack([step.output for step in steps if step.output is not None]).mean(0)


def _has_weights(layer: nn.Module) -> bool:
    return any(True for _ in layer.parameters(recurse=False))


def _outputs(layer: nn.Module) -> int:
    return int(getattr(layer, "out_features", getattr(layer, "out_channels", 0)))


def _patch_grid(run: _Run) -> tuple[int, int] | None:
    """Rows and columns of patches, where the first convolution cuts the image into such."""
    for path, shape, _ in run.steps:
        layer = run.layer(path)
        if isinstance(layer, nn.Conv2d):
            cuts = layer.kernel_size == layer.stride and layer.kernel_size[0] > 1
            return (shape[2], shape[3]) if cuts and len(shape) == 4 else None
    return None


def _prefix_tokens(run: _Run, patches: tuple[int, int] | None) -> int | None:
    """How many tokens most layers have beside the patches; None for a network without tokens."""
    if patches is None:
        return None
    beside = Counter(
        shape[1] - patches[0] * patches[1]
        for _, shape, _ in run.steps
        if len(shape) == 3 and shape[0] == 1
    )
    possible = {prefix: count for prefix, count in beside.items() if 0 <= prefix <= 64}
    return max(possible, key=lambda prefix: possible[prefix]) if possible else None


def _is_channels_last(run: _Run) -> bool:
    """Whether more of the maps that blocks and stages give have the image's form so."""
    votes: Counter[bool] = Counter()
    for path, shape, _ in run.steps:
        if len(shape) == 4 and any(True for _ in run.layer(path).children()):
            _, one, two, three = shape
            first, last = (has_form(grid, run.image_size) for grid in ((two, three), (one, two)))
            votes.update([last] if first != last else [])
    return votes[True] > votes[False]


def _with_grid(run: _Run, classifiers: Sequence[str], traits: Traits) -> list[str]:
    """Layers with weights before the classifier that have positions of the image, last first."""
    end = min((run.began.get(path, 0) for path in classifiers), default=len(run.steps))
    found = [
        step.path
        for step in run.steps[:end]
        if any(True for _ in run.layer(step.path).parameters())
        and _has_grid(step.shape, traits, run.image_size)
    ]
    return list(dict.fromkeys(reversed(found)))[:_TRIED]


def _has_grid(shape: tuple[int, ...], traits: Traits, image_size: tuple[int, int]) -> bool:
    if not shape or shape[0] != 1:
        return False
    if len(shape) == 4:
        grids = [shape[2:], shape[1:3]]
        return any(has_form(grid, image_size) and max(grid) > 1 for grid in grids)
    if len(shape) != 3:
        return False
    own = traits.patch_grid
    counts = {shape[1], shape[1] - (traits.prefix_tokens or 0)}
    tiles = own is not None and own[0] * own[1] in counts
    return tiles or any(n > 1 and aspect_grid(n, image_size) is not None for n in counts)


def _with_pooling(traits: Traits, position: str | None, gradient: Tensor | None) -> Traits:
    """The traits with what feeds the classifier: a class token, an average, the last stage."""
    prefix = traits.prefix_tokens or 0
    if gradient is None:
        return traits
    last_stage, pools = None, not prefix
    if gradient.ndim == 4:
        last_stage = position
    elif prefix:
        size_N = gradient[0].norm(dim=-1)
        pools = bool(size_N[0] <= _LIKE_A_PATCH * size_N[prefix:].max())
    return Traits(
        prefix_tokens=traits.prefix_tokens,
        has_class_token=traits.has_class_token,
        pools_patches=pools,
        channels_last=traits.channels_last,
        patch_grid=traits.patch_grid,
        last_stage=last_stage,
    )
