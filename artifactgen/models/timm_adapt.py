"""Weights of timm that were trained at another size: resampled by timm's own functions.

Only for what a user sets: an image size, a patch or window size, a number of channels.
"""

from __future__ import annotations

import math
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from timm.models import adapt_input_conv
from torch import Tensor, nn

from artifactgen.models.audit import Mismatch, within
from artifactgen.models.base import Network
from artifactgen.models.timm import Timm, pretrained_cfg

POSITIONS = re.compile(
    r"(^|\.)(\w*pos_embed\w*|rel_pos\w*|relative_position_bias_table|attention_biases)$"
)
"""Parameters of which there is one for each place in the image, or in a window."""
_FILTERS = ("checkpoint_filter_fn", "_filter_fn")
"""What timm's files call the function that makes a checkpoint fit a model."""
_SIZES = ("patch_size", "window_size")
_USUAL_CHANNELS = 3

Tensors = Mapping[str, Tensor]


def adapted(
    family: Timm, network: Network, tensors: Tensors, wrong: tuple[Mismatch, ...]
) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """What takes the place of weights of another shape, and what was done to them.

    Nothing, unless all of them can be made to fit, by what the user set.

    Args:
        family: as the user has it.
        network: built for the size and channels that were asked for.
        tensors: the checkpoint's, under the model's names.
        wrong: those of another shape than the model's.
    """
    own = network.module.state_dict()
    taken = {name: tensor for name, tensor in tensors.items() if name in own}
    sized = [name for name, *_ in wrong if _is_sized(family, name)]
    filtered = _filtered(network.module, taken) if sized else {}
    found = {name: filtered[name] for name in sized if name in filtered}
    found |= _other_channels(family, network.module, {**taken, **found}, wrong)
    fits = all(name in found and found[name].shape == own[name].shape for name, *_ in wrong)
    return (found, tuple(_told(network, wrong, own))) if fits else ({}, ())


def trained_size(draft: Network, tensors: Tensors) -> tuple[int, int] | None:
    """(H, W) of the images that positions in a checkpoint are of, where the draft has others.

    None where they tell no size.
    """
    own = draft.module.state_dict()
    wrong = [name for name in own if name in tensors and tensors[name].shape != own[name].shape]
    sized = [name for name in wrong if not within(name, draft.classifiers)]
    sized = [name for name in sized if name not in _first_convolutions(draft.module)]
    patch = getattr(getattr(draft.module, "patch_embed", None), "patch_size", None)
    if patch is None or not sized or not all(map(POSITIONS.search, sized)):
        return None
    if any(tensors[name].shape[2:] != own[name].shape[2:] for name in wrong if name not in sized):
        return None  # another patch size
    if _grid(draft, sized[0], own[sized[0]].shape) != draft.traits.patch_grid:
        return None  # of windows
    grid = _grid(draft, sized[0], tensors[sized[0]].shape)
    return None if grid is None else (grid[0] * patch[0], grid[1] * patch[1])


def _is_sized(family: Timm, name: str) -> bool:
    """Whether a user has set the size that a parameter depends on."""
    if name.endswith("patch_embed.proj.weight"):
        return "patch_size" in family.options
    sets = family.image_size is not None or any(size in family.options for size in _SIZES)
    return sets and POSITIONS.search(name) is not None


def _filtered(module: nn.Module, tensors: Tensors) -> Tensors:
    """The tensors as timm makes them fit this model; none where it cannot, or has no way to."""
    of_model = sys.modules[type(module).__module__]
    filters = (getattr(of_model, name, None) for name in _FILTERS)
    filter_: Callable[..., Any] | None = next((found for found in filters if found), None)
    if filter_ is None:
        return {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # timm's interpolation indexes by lists
            made: Tensors = filter_(dict(tensors), module)
    except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError, LookupError):
        return {}  # as for positions of a grid that is not square
    return made


def _other_channels(
    family: Timm, module: nn.Module, tensors: Tensors, wrong: tuple[Mismatch, ...]
) -> dict[str, Tensor]:
    """First convolutions for `model.in_chans`, where it is not what it is by default."""
    if family.in_chans == _USUAL_CHANNELS:
        return {}
    made: dict[str, Tensor] = {}
    for name, _, shape in wrong:
        if name in _first_convolutions(module) and len(shape) == len("OIHW"):
            was = tensors[name].shape[1] * family.in_chans
            base, uneven = divmod(was, shape[1])
            if not uneven and base != family.in_chans:
                made[name] = _with_channels(family.in_chans, tensors[name], base)
    return made


def _with_channels(channels: int, weight: Tensor, base: int) -> Tensor:
    try:
        made: Tensor = adapt_input_conv(channels, weight, base_chans=base)
    except NotImplementedError:
        return weight
    return made


def _first_convolutions(module: nn.Module) -> list[str]:
    """Names of the weights that the image's channels go into."""
    first = pretrained_cfg(module).get("first_conv")
    return [f"{name}.weight" for name in ([first] if isinstance(first, str) else first or ())]


def _told(network: Network, wrong: tuple[Mismatch, ...], own: Tensors) -> Iterator[str]:
    """Sentences, one for each kind of parameter and pair of sizes."""
    said: dict[str, None] = {}
    for name, before, after in wrong:
        if name in _first_convolutions(network.module) and before[1] != after[1]:
            said[f"first convolution adapted from {before[1]} to {after[1]} channel(s)"] = None
        if name.endswith("patch_embed.proj.weight") and before[2:] != after[2:]:
            said[f"patch kernel resampled from {_by(before[2:])} to {_by(after[2:])}"] = None
        elif POSITIONS.search(name):
            old, new = (_grid(network, name, shape) for shape in (before, after))
            new = network.traits.patch_grid if old and len(after) == len("1ND") else new
            kind = "position embeddings" if "pos_embed" in name else "relative positions"
            sizes = f"{_by(old or before)} to {_by(new or after)}"
            said[f"{kind} resampled from {sizes}"] = None
    yield from said


def _grid(network: Network, name: str, shape: tuple[int, ...]) -> tuple[int, int] | None:
    """Rows and columns of positions, as far as a shape tells: square ones, or those in 2-D."""
    module = network.module
    if name.endswith("pos_embed") and len(shape) == len("1HWD"):
        return shape[1], shape[2]
    if name.endswith("pos_embed") and len(shape) == len("1ND"):
        embeds_prefix = not getattr(module, "no_embed_class", False)
        prefix_tokens = (network.traits.prefix_tokens or 0) if embeds_prefix else 0
        return _square(shape[1] - prefix_tokens)
    if name.endswith("relative_position_bias_table") and len(shape) == len("NH"):
        # Of windows with a class token, three more: to it, from it, and its own.
        offsets = _square(shape[0]) or _square(shape[0] - 3)
        return None if offsets is None else ((offsets[0] + 1) // 2, (offsets[1] + 1) // 2)
    return None


def _square(count: int) -> tuple[int, int] | None:
    side = math.isqrt(max(count, 0))
    return (side, side) if side and side * side == count else None


def _by(sides: tuple[int, ...]) -> str:
    """`14 × 14`."""
    return " × ".join(map(str, sides))
