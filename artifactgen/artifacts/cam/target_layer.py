"""Which layer's activations a class activation map weighs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from artifactgen.artifacts.base import Subject
from artifactgen.errors import ConfigError
from artifactgen.introspect.grid import grid_of
from artifactgen.introspect.probe import random_image
from artifactgen.models.arriving import keep_output

_SUGGESTIONS = 6


def find_target_layer(subject: Subject) -> str:
    """Module path of the layer that is usual for the architecture.

    For transformers with a norm before attention it is `norm1` of the last block: at the output
    of that block the patch tokens no longer reach a class token's logit, so their gradient is
    zero. Elsewhere it is the last stage that timm lists for feature extraction. Where no class
    score depends on the patches of either, the last layer where one does.

    Raises:
        ConfigError: no layer has.
    """
    usual = [path for path in dict.fromkeys(_usual(subject)) if _has_grid(subject, path)]
    working = layers_with_gradient(subject, usual)
    found = next((path for path in usual if path in working), None)
    if found is None:
        found = next(iter(suggest_layers(subject)), None)
    if found is None:
        raise ConfigError(
            f"No layer of {type(subject.model).__name__} has positions of the image that class "
            "scores depend on, so it has no class activation maps. Set generate_gradcam=false."
        )
    return found


def suggest_layers(subject: Subject) -> list[str]:
    """The last layers that class activation maps can be made of, the last one first."""
    candidates = [path for path in reversed(subject.probe.outputs) if _has_grid(subject, path)]
    working = layers_with_gradient(subject, candidates[: 8 * _SUGGESTIONS])
    return [path for path in candidates if path in working][:_SUGGESTIONS]


def find_finer_layer(subject: Subject, *, side: int) -> tuple[str, tuple[int, int]] | None:
    """The last stage whose grid is so long along its longer side, and that grid; None if none is.

    Only layers that class scores depend on count; a stage is the outermost of those with one grid.
    """
    sizes = {
        path: grid_of(subject.network.traits, output, image_size=subject.image_size).size
        for path, output in subject.probe.outputs.items()
        if _has_grid(subject, path)
    }
    fine = [path for path, size in reversed(sizes.items()) if max(size) >= side]
    alike = [path for path in fine if sizes[path] == sizes[fine[0]]]
    working = layers_with_gradient(subject, alike)
    stages = sorted((path for path in alike if path in working), key=lambda path: path.count("."))
    return (stages[0], sizes[stages[0]]) if stages else None


def _usual(subject: Subject) -> Iterator[str]:
    seen, traits = subject.probe, subject.network.traits
    last = [f"{traits.last_block}.attn"] if traits.last_block else []
    for path in (*last, *reversed(seen.attention)):
        block, _, name = path.rpartition(".")
        # TNT has an inner and an outer attention in a block, attn_out behind norm_out.
        norm = f"{block}.norm1" if name == "attn" else f"{block}.{name.replace('attn_', 'norm_')}"
        if path in seen.attention and norm != path and norm in seen.outputs:
            yield norm
            break
    if traits.last_stage:
        yield traits.last_stage
    yield from _norms_before_attention(subject)


def _norms_before_attention(subject: Subject) -> Iterator[str]:
    """Norms that had ended when the last attention over positions began, the last one first.

    For what has other names than timm's. A pooling by attention has no norm in front of it whose
    patches lie over the image and reach a score, or the same one as the last block behind it.
    """
    seen, traits = subject.probe, subject.network.traits
    for path in reversed(seen.attention):
        if type(subject.model.get_submodule(path)).__name__ in traits.not_over_positions:
            continue
        before = seen.finished[: seen.began.get(path, 0)]
        norms = (p for p in reversed(before) if _is_norm(subject.model.get_submodule(p)))
        found = next((p for p in norms if _has_grid(subject, p)), None)
        if found is not None:
            yield found
            return


def _is_norm(layer: nn.Module) -> bool:
    return "norm" in type(layer).__name__.lower()


def _has_grid(subject: Subject, path: str) -> bool:
    # An output with several rows for an image holds its windows, not its positions.
    output = subject.probe.outputs.get(path)
    if output is None or len(output) != 1:
        return False
    try:
        grid = grid_of(subject.network.traits, output, image_size=subject.image_size)
    except ConfigError:
        return False
    return grid.height * grid.width > 1


def layers_with_gradient(subject: Subject, paths: Iterable[str]) -> set[str]:
    """Those of the layers whose patches class scores depend on; one forward and one backward."""
    outputs: dict[str, Tensor] = {}
    paths, network = list(paths), subject.network
    if not paths:
        return set()
    with ExitStack() as stack, torch.enable_grad():
        for path in paths:
            stack.callback(keep_output(network.module, path, outputs).remove)
        x_BCHW = random_image(network, subject.image_size).requires_grad_()
        _, logits_BK = network.forward(x_BCHW, classify=True)
        assert logits_BK is not None
        # Differently weighed, as a sum over classes may not depend on anything.
        if not outputs:
            return set()
        score = (logits_BK * torch.arange(1, logits_BK.shape[1] + 1, device=x_BCHW.device)).sum()
        found = torch.autograd.grad(score, list(outputs.values()), allow_unused=True)
    gradients = dict(zip(outputs, found, strict=True))
    return {path for path, gradient in gradients.items() if _is_anywhere(gradient, subject)}


def _is_anywhere(gradient: Tensor | None, subject: Subject) -> bool:
    """Whether a gradient is other than zero at some patch."""
    if gradient is None:
        return False
    grid = grid_of(subject.network.traits, gradient, image_size=subject.image_size)
    return bool(grid(gradient).any())
