"""Which layer's activations a class activation map weighs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from artifactgen.artifacts.base import Subject
from artifactgen.errors import ConfigError
from artifactgen.introspect.forward import only_tensor
from artifactgen.introspect.grid import grid_of
from artifactgen.introspect.probe import Probe, probe, random_image

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
    seen = probe(subject.model, subject.image_size, channels=subject.channels)
    usual = [path for path in dict.fromkeys(_usual(subject.model, seen)) if _has_grid(seen, path)]
    working = layers_with_gradient(subject, usual)
    found = next((path for path in usual if path in working), None)
    if found is None:
        found = next(iter(suggest_layers(subject, seen)), None)
    if found is None:
        raise ConfigError(
            f"No layer of {type(subject.model).__name__} has positions of the image that class "
            "scores depend on, so it has no class activation maps. Set generate_gradcam=false."
        )
    return found


def suggest_layers(subject: Subject, seen: Probe | None = None) -> list[str]:
    """The last layers that class activation maps can be made of, the last one first."""
    seen = seen or probe(subject.model, subject.image_size, channels=subject.channels)
    candidates = [path for path in reversed(seen.outputs) if _has_grid(seen, path)]
    working = layers_with_gradient(subject, candidates[: 8 * _SUGGESTIONS])
    return [path for path in candidates if path in working][:_SUGGESTIONS]


def _usual(model: nn.Module, seen: Probe) -> Iterator[str]:
    for path in (f"{_last_block(model)}.attn", *reversed(seen.attention)):
        block, _, name = path.rpartition(".")
        # TNT has an inner and an outer attention in a block, attn_out behind norm_out.
        norm = f"{block}.norm1" if name == "attn" else f"{block}.{name.replace('attn_', 'norm_')}"
        if path in seen.attention and norm != path and norm in seen.outputs:
            yield norm
            break
    stages = getattr(model, "feature_info", None)
    if stages:
        yield str(stages[-1]["module"])


def _last_block(model: nn.Module) -> str:
    blocks = getattr(model, "blocks", None)
    return f"blocks.{len(blocks) - 1}" if isinstance(blocks, nn.Sequential | nn.ModuleList) else ""


def _has_grid(seen: Probe, path: str) -> bool:
    # An output with several rows for an image holds its windows, not its positions.
    if path not in seen.outputs or len(seen.outputs[path]) != 1:
        return False
    try:
        grid = grid_of(seen.model, seen.outputs[path], image_size=seen.image_size)
    except ConfigError:
        return False
    return grid.height * grid.width > 1


def layers_with_gradient(subject: Subject, paths: Iterable[str]) -> set[str]:
    """Those of the layers whose patches class scores depend on; one forward and one backward."""
    outputs: dict[str, Tensor] = {}
    paths, model, image_size = list(paths), subject.model, subject.image_size
    if not paths:
        return set()
    with ExitStack() as stack, torch.enable_grad():
        for path in paths:
            hook = model.get_submodule(path).register_forward_hook(_keeper(outputs, path))
            stack.callback(hook.remove)
        x_BCHW = random_image(model, image_size, subject.channels).requires_grad_()
        logits_BK = only_tensor(model(x_BCHW))
        # Differently weighed, as a sum over classes may not depend on anything.
        if not outputs:
            return set()
        score = (logits_BK * torch.arange(1, logits_BK.shape[1] + 1, device=x_BCHW.device)).sum()
        found = torch.autograd.grad(score, list(outputs.values()), allow_unused=True)
    gradients = dict(zip(outputs, found, strict=True))
    return {
        path
        for path, gradient in gradients.items()
        if gradient is not None and grid_of(model, gradient, image_size=image_size)(gradient).any()
    }


def _keeper(outputs: dict[str, Tensor], path: str) -> Any:
    def hook(_module: nn.Module, _args: object, output: object) -> Tensor | None:
        if not isinstance(output, Tensor):
            return None
        outputs[path] = output
        return output.clone()  # an in-place activation behind it would change what is kept

    return hook
