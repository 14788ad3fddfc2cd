"""From names in a checkpoint to names of the model: wrappers' prefixes, official layouts."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

Shapes = Mapping[str, torch.Size]

_AVERAGED = frozenset({"teacher", "ema"})
_LAGGING = frozenset({"student", "momentum", "k"})
"""Words for what is not evaluated: a student, and the keys' encoder of contrastive learning."""
_WRAPPERS = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")
_DINOV2_CHUNK = re.compile(r"^blocks\.\d+\.(?=\d+\.)")
_DINOV2_NAMES = {
    r"^register_tokens$": "reg_token",
    r"^(blocks\.\d+\.mlp\.)w12\.": r"\1fc1.",
    r"^(blocks\.\d+\.mlp\.)w3\.": r"\1fc2.",
}


@dataclass(frozen=True, slots=True)
class NamedWeights:
    """The weights of a checkpoint that lie below one prefix, under the model's names."""

    prefix: str
    naming: str
    """`timm`, `dinov2` where names had to be translated, or another layout of the model's."""
    tensors: Mapping[str, Tensor]
    outside: tuple[str, ...]
    """Full names that do not lie below the prefix."""
    rivals: tuple[str, ...]
    """Other prefixes that would have fitted just as well."""
    head: int | None = None
    """Classes of a classifier that was found beside the encoder, if one was taken from there."""


def rename(state_dict: Mapping[str, Tensor], shapes: Shapes) -> NamedWeights:
    """Find the model inside of the checkpoint.

    The prefix is the one below which most names of the model occur with their shapes. Of equals:
    a teacher or other average of the weights, then anything else, then a student; then the
    shortest. Prefixes are found, not listed, so `model.net.encoder.` is as good as `module.`.

    Args:
        state_dict: tensors by their names in the checkpoint.
        shapes: shapes by their names in the model.
    """
    prefix, rivals = _choose(_fits(state_dict, shapes))
    below = {k.removeprefix(prefix): v for k, v in state_dict.items() if k.startswith(prefix)}
    outside = tuple(name for name in state_dict if not name.startswith(prefix))
    unwrapped = {_WRAPPERS.sub("", name).lstrip("."): tensor for name, tensor in below.items()}
    tensors = _from_dinov2(unwrapped, shapes)
    naming = "timm" if tensors.keys() == unwrapped.keys() else "dinov2"
    return NamedWeights(prefix, naming, tensors, outside, rivals)


def _fits(state_dict: Mapping[str, Tensor], shapes: Shapes) -> Mapping[str, tuple[int, int]]:
    """For each prefix below which a name of the model occurs: (equal shapes, equal names)."""
    fits: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
    for key, tensor in state_dict.items():
        for prefix, wrapped in _splits(key):
            name = wrapped if wrapped in shapes else _WRAPPERS.sub("", wrapped)
            if name in shapes:
                same, named = fits[prefix]
                fits[prefix] = (same + (tensor.shape == shapes[name]), named + 1)
    return fits


def _splits(key: str) -> Iterator[tuple[str, str]]:
    """`a.b.c` as ('', 'a.b.c'), ('a.', 'b.c'), ('a.b.', 'c'); wrappers end the first of both."""
    for end in (0, *(dot.end() for dot in re.finditer(r"\.", key))):
        if not _WRAPPERS.match(key[end:]):
            yield key[:end], key[end:]


def _choose(fits: Mapping[str, tuple[int, int]]) -> tuple[str, tuple[str, ...]]:
    if not fits:
        return "", ()
    best = max(fits.values())
    first, *rivals = sorted((p for p, fit in fits.items() if fit == best), key=_preference)
    return first, tuple(rivals)


def _preference(prefix: str) -> tuple[int, int, str]:
    words = set(re.split(r"[._]", prefix))
    rank = 0 if words & _AVERAGED else 2 if words & _LAGGING else 1
    return rank, len(prefix), prefix


def _from_dinov2(tensors: Mapping[str, Tensor], shapes: Shapes) -> dict[str, Tensor]:
    """Translate Meta's DINOv2 names where the model knows the translation and not the original.

    https://github.com/facebookresearch/dinov2/blob/main/dinov2/models/vision_transformer.py
    """
    renamed = {_dinov2_name(name, shapes): tensor for name, tensor in tensors.items()}
    if "register_tokens" in tensors and "reg_token" in renamed:
        # timm's models with registers add no position to the class token: it is part of the token.
        position = renamed["pos_embed"]
        renamed["cls_token"] = renamed["cls_token"] + position[:, :1]
        renamed["pos_embed"] = position[:, 1:]
    return renamed


def _dinov2_name(name: str, shapes: Shapes) -> str:
    translated = _DINOV2_CHUNK.sub("blocks.", name)
    for pattern, replacement in _DINOV2_NAMES.items():
        translated = re.sub(pattern, replacement, translated)
    return translated if translated in shapes and name not in shapes else name
