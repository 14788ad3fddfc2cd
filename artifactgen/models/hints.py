"""What to change about a checkpoint that does not fit a model of timm."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from artifactgen.models.audit import LoadAudit
from artifactgen.models.candidates import FITS, fitting
from artifactgen.models.checkpoint import Checkpoint
from artifactgen.models.recognise import as_options, looks_like, not_recognised
from artifactgen.models.stated import Stated, read_for_advice
from artifactgen.models.timm import Timm, pretrained_cfg
from artifactgen.models.timm_adapt import POSITIONS
from artifactgen.models.timm_stated import architecture, claims


def hint(
    audit: LoadAudit, checkpoint: Checkpoint, model: nn.Module, *, options: Mapping[str, Any]
) -> str:
    """A sentence on what to change, from the tensors of the checkpoint; always says something.

    Args:
        audit: of what does not fit.
        checkpoint: with all of its tensors.
        model: that was built.
        options: of the architecture, that were set.
    """
    wrong = {name: shape for name, shape, _ in audit.mismatched}
    if not (audit.missing or audit.surplus):
        found = _other_channels(wrong, model) or _other_size(wrong, model)
        if found:
            return found
    pooling = _other_pooling(audit)
    if pooling:
        return pooling
    stated = read_for_advice(checkpoint)
    said = _trained_as(stated, pretrained_cfg(model)["architecture"]) or looks(checkpoint, stated)
    fits = said.startswith(FITS) and options
    return f"{said} Leave model.options out: model.options={{}}." if fits else said


def looks(checkpoint: Checkpoint, stated: Stated) -> str:
    """What a checkpoint looks like, and what takes it; always says something."""
    heads = stated.options.get("num_heads")
    tensors = checkpoint.state_dict
    found = fitting(checkpoint) or looks_like(tensors, heads and heads.value)
    return found or not_recognised(tensors)


def _other_channels(wrong: Mapping[str, tuple[int, ...]], model: nn.Module) -> str:
    first = pretrained_cfg(model).get("first_conv")
    names = [first] if isinstance(first, str) else list(first or ())
    shapes = [wrong[f"{name}.weight"] for name in names if f"{name}.weight" in wrong]
    if not shapes or len(shapes) < len(wrong) or len(shapes[0]) != 4:
        return ""
    channels = shapes[0][1]
    return f"It was trained on images of {channels} channel(s): try model.in_chans={channels}."


def _other_size(wrong: Mapping[str, tuple[int, ...]], model: nn.Module) -> str:
    """For position embeddings (1, N, D) of another grid, the image size that has this grid."""
    if not all(map(POSITIONS.search, wrong)):
        return ""
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if set(wrong) != {"pos_embed"} or patch is None or len(wrong["pos_embed"]) != 3:
        name = pretrained_cfg(model)["architecture"]
        return (
            "Its positions are of another image size or window, and timm does not resample those "
            f"of {name}: set data.image_size as in training."
        )
    embeds_prefix = not getattr(model, "no_embed_class", False)
    prefix_tokens = getattr(model, "num_prefix_tokens", 0) if embeds_prefix else 0
    patches = wrong["pos_embed"][1] - prefix_tokens
    side = math.isqrt(max(patches, 0))
    if side == 0 or side * side != patches:
        return f"It has positions for {patches} patches: set data.image_size as in training."
    size = f"[{side * patch[0]},{side * patch[1]}]"
    return f"It has positions for {side} x {side} patches: try data.image_size={size}."


def _other_pooling(audit: LoadAudit) -> str:
    differing = {name.partition(".")[0] for name in (*audit.surplus, *audit.missing)}
    if audit.mismatched or not differing or not differing <= {"norm", "fc_norm"}:
        return ""
    return (
        "Only the last norm differs, so another pooling was trained: leave model.global_pool "
        "unset, or set model.global_pool=avg for fc_norm, model.global_pool=token for norm."
    )


def _trained_as(stated: Stated, backbone: str) -> str:
    said = architecture(stated)
    if said is None or said.value.partition(".")[0] == backbone:
        return ""
    of_class = claims(Timm(backbone=said.value), stated)
    options = {c.option.partition(".")[2]: c.value for c in of_class if "options." in c.option}
    more = f" {as_options(options)}" if options else ""
    return (
        f"The checkpoint says that it is a {said.value} ({said.where}): "
        f"try model.backbone={said.value}{more}."
    )
