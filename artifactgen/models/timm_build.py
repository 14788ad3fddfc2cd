"""A model of timm, made as its options say; what timm refuses, in our words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import timm
from torch import nn

from artifactgen.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from artifactgen.models.timm import Timm

RESERVED_OPTIONS = {
    "img_size": "data.image_size",
    "in_chans": "model.in_chans",
    "num_classes": "model.num_classes",
    "global_pool": "model.global_pool",
    "checkpoint_path": "ckpt_path",
    "pretrained": "ckpt_path",
    "pretrained_cfg": "ckpt_path",
    "pretrained_cfg_overlay": "data.mean, data.std or data.image_size",
    "cache_dir": "ckpt_path",
    "features_only": "model.backbone",
}
"""Arguments of `timm.create_model` that an option of ours stands for."""


def build(spec: Timm) -> nn.Module:
    """The model with random weights, in eval mode, float32, without gradients.

    Raises:
        ConfigError: unknown backbone, or an option that this architecture does not take.
    """
    name = spec.name
    _check_settings(spec)
    arguments = {"num_classes": spec.num_classes, "in_chans": spec.in_chans, **spec.options}
    if spec.global_pool is not None:
        arguments["global_pool"] = spec.global_pool
    try:
        model = _create_sized(name, arguments, spec.image_size)
    except (TypeError, ValueError, LookupError, AssertionError, RuntimeError) as error:
        raise _rejection(name, arguments, error) from error
    _check_patches(model, spec)
    return model.eval().requires_grad_(False)


def resolve_backbone(name: str) -> str:
    """The name under which timm knows `name`, with its `.tag` where it has one.

    Raises:
        ConfigError: timm has no such model, or none with this tag.
    """
    architecture, dot, tag = name.partition(".")
    for known in (architecture, f"{architecture}_224"):
        if timm.is_model(known):
            _check_tag(known, tag)
            return known + dot + tag
    hint = did_you_mean(architecture, timm.list_models())
    raise ConfigError(f"model.backbone={name}: timm has no such model. {hint}")


def _check_tag(architecture: str, tag: str) -> None:
    known = [name.partition(".")[2] for name in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in known:
        hint = did_you_mean(tag, known)
        raise ConfigError(f"model.backbone: timm's {architecture} has no variant .{tag}. {hint}")


def _check_settings(spec: Timm) -> None:
    for option in spec.options:
        if option in RESERVED_OPTIONS:
            instead = RESERVED_OPTIONS[option]
            raise ConfigError(f"model.options.{option} is not free: set {instead} instead.")
    if spec.num_classes is not None and spec.num_classes < 0:
        raise ConfigError(f"model.num_classes={spec.num_classes}: must be 0 (no head) or more.")
    if spec.in_chans < 1:
        raise ConfigError(f"model.in_chans={spec.in_chans}: must be 1 or more.")
    if spec.image_size is not None and min(spec.image_size) < 1:
        raise ConfigError(f"data.image_size={list(spec.image_size)}: must be 1 or more.")


def _create_sized(
    name: str, arguments: Mapping[str, Any], image_size: tuple[int, int] | None
) -> nn.Module:
    """Create the model for `image_size`; a network that takes any size has no such argument."""
    if image_size is not None:
        try:
            return _create(name, {**arguments, "img_size": image_size})
        except TypeError as error:
            if not _is_unexpected("img_size", error):
                raise
    return _create(name, arguments)


def _create(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    model: nn.Module = timm.create_model(name, pretrained=False, **arguments)
    return model


def _is_unexpected(argument: str, error: Exception) -> bool:
    """Whether a constructor refused just this argument; Python and timm word it alike."""
    return "unexpected keyword argument" in str(error) and f"'{argument}'" in str(error)


def _rejection(name: str, arguments: Mapping[str, Any], error: Exception) -> ConfigError:
    for argument, value in arguments.items():
        if _is_unexpected(argument, error):
            known = argument in RESERVED_OPTIONS
            option = RESERVED_OPTIONS[argument] if known else f"model.options.{argument}"
            return ConfigError(
                f"{option}={value}: {name} takes no argument {argument}. Leave it out."
            )
    given = ", ".join(f"{key}={value}" for key, value in arguments.items() if value is not None)
    reason = f"{type(error).__name__}: {error}".rstrip(": ")
    return ConfigError(f"model.backbone={name}: timm cannot build it with {given} ({reason}).")


def _check_patches(model: nn.Module, spec: Timm) -> None:
    """Refuse an image size that the patches do not tile: timm would cut off its edge."""
    embed = getattr(model, "patch_embed", None)
    patch = getattr(embed, "patch_size", None)
    if spec.image_size is None or patch is None or getattr(embed, "dynamic_img_pad", True):
        return
    height, width = spec.image_size
    if height % patch[0] or width % patch[1]:
        size = f"data.image_size={[height, width]}"
        raise ConfigError(f"{size}: not a multiple of {spec.name}'s patch size {list(patch)}.")
