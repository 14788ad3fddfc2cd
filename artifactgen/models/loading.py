"""Load a checkpoint into the model it was trained as: audited, complete, or refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from artifactgen.errors import CheckpointError
from artifactgen.models.audit import LoadAudit, audit_load
from artifactgen.models.checkpoint import Checkpoint
from artifactgen.models.hints import remedy
from artifactgen.models.naming import NamedWeights, rename
from artifactgen.models.timm import ModelSpec, build_model, pretrained_cfg, resolve_backbone

_FILLS = frozenset(
    f"{name}_"
    for name in (
        *("fill", "zero", "zeros", "ones", "constant", "copy"),
        *("normal", "uniform", "trunc_normal", "erfinv", "mul", "div", "add", "clamp"),
        *("kaiming_normal", "kaiming_uniform", "xavier_normal", "xavier_uniform"),
    )
)
"""In-place functions of torch and `torch.nn.init` with which layers initialise parameters."""


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that computes what its checkpoint was trained to compute."""

    model: nn.Module
    """In eval mode, float32, without gradients, on the CPU."""
    spec: ModelSpec
    """What was built, nothing left open: `build_model` of it has the same parameters."""
    audit: LoadAudit
    has_head: bool
    classifier: str | None
    """Module path of the trained classifier; never a randomly initialised one."""


def load_model(spec: ModelSpec, checkpoint: Checkpoint) -> LoadedModel:
    """Build the model of `spec` and fill all of it from the checkpoint.

    Head and pooling follow the checkpoint where `spec` leaves them open. Without a head in the
    checkpoint the model is built without one.

    Raises:
        ConfigError: the model of `spec` does not exist.
        CheckpointError: less than the whole encoder is in the checkpoint, or more of it, or its
            head has another number of classes, or weights are not finite.
    """
    spec = dataclasses.replace(spec, backbone=resolve_backbone(spec.backbone))
    draft = _build(spec)
    weights = rename(checkpoint.state_dict, _shapes(draft))
    resolved = _resolve(spec, draft, weights)
    model = draft if resolved == spec else _build(resolved)
    classifiers = _classifiers(model)
    audit = audit_load(
        model,
        weights,
        container=checkpoint.container,
        classifiers=classifiers,
        beside=_beside_encoder(spec, model),
    )
    if spec.num_classes == 0 and _head_classes(draft, weights):
        audit = dataclasses.replace(audit, head="unused")
    _require_fit(audit, checkpoint, model)
    _require_classes(spec, resolved, audit, checkpoint)
    _fill(model, weights.tensors, checkpoint)
    has_head = audit.head == "loaded"
    return LoadedModel(model, resolved, audit, has_head, classifiers[0] if has_head else None)


class _WithoutInitialisation(TorchFunctionMode):
    """Leaves parameters as allocated: all of them come from a checkpoint a moment later.

    Random numbers for a ViT-L take longer than reading its checkpoint.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        target = args[0] if args else kwargs.get("tensor")
        if isinstance(target, nn.Parameter) and getattr(func, "__name__", "") in _FILLS:
            return target
        return func(*args, **kwargs)


def _build(spec: ModelSpec) -> nn.Module:
    with _WithoutInitialisation():
        return build_model(spec)


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def _resolve(spec: ModelSpec, draft: nn.Module, weights: NamedWeights) -> ModelSpec:
    """Settle the number of classes and the pooling by what the checkpoint holds."""
    classes = 0 if spec.num_classes == 0 else _head_classes(draft, weights)
    pool = spec.global_pool or _trained_pool(draft, weights)
    return dataclasses.replace(spec, num_classes=classes, global_pool=pool)


def _trained_pool(draft: nn.Module, weights: NamedWeights) -> str | None:
    """`avg` for a ViT that normalises after the pooling, as in MAE's fine-tuning.

    https://github.com/facebookresearch/mae/blob/main/models_vit.py
    """
    normalises_after = "fc_norm.weight" in weights.tensors and "norm.weight" not in weights.tensors
    if normalises_after and hasattr(draft, "fc_norm"):
        return "avg"
    own = getattr(draft, "global_pool", None)
    return own if isinstance(own, str) else None


def _classifiers(model: nn.Module) -> tuple[str, ...]:
    """Module paths of the classifiers that the model has: of a distilled one, two."""
    names = model.state_dict().keys()
    return tuple(path for path in _classifier_paths(model) if f"{path}.weight" in names)


def _classifier_paths(model: nn.Module) -> tuple[str, ...]:
    """Where classifiers of this architecture are, built or not."""
    named = pretrained_cfg(model).get("classifier")
    return (named,) if isinstance(named, str) else tuple(named or ())


def _beside_encoder(spec: ModelSpec, model: nn.Module) -> frozenset[str]:
    """Top-level modules of which a checkpoint may hold more than the model without harm.

    Heads of a pre-training have a classifier's name. Of a ViT's two last norms the pooling decides
    which is used; some trainings save both, and then it is for the user to say.
    """
    heads = {path.partition(".")[0] for path in _classifier_paths(model)}
    return frozenset(heads | ({"norm", "fc_norm"} if spec.global_pool else set()))


def _head_classes(draft: nn.Module, weights: NamedWeights) -> int:
    """Number of classes of the classifier in the checkpoint; 0 if there is none."""
    heads = (weights.tensors.get(f"{path}.weight") for path in _classifier_paths(draft))
    return next((len(head) for head in heads if head is not None and head.ndim > 1), 0)


def _require_fit(audit: LoadAudit, checkpoint: Checkpoint, model: nn.Module) -> None:
    if audit.fits:
        return
    name = pretrained_cfg(model)["architecture"]
    lines = [f"{checkpoint.path}: does not fit {name}: {audit.summary()}."]
    lines += _few("Missing", audit.missing)
    lines += _few("Other shape", [f"{n} {a} for {b}" for n, a, b in audit.mismatched])
    lines += _few("More than the model has", audit.surplus)
    raise CheckpointError("\n".join([*lines, remedy(audit, checkpoint, model)]))


def _few(title: str, names: tuple[str, ...] | list[str], *, limit: int = 4) -> list[str]:
    if not names:
        return []
    more = f", and {len(names) - limit} more" if len(names) > limit else ""
    return [f"{title}: {', '.join(names[:limit])}{more}."]


def _require_classes(
    spec: ModelSpec, resolved: ModelSpec, audit: LoadAudit, checkpoint: Checkpoint
) -> None:
    if audit.head.startswith("incomplete"):
        raise CheckpointError(f"{checkpoint.path}: the classifier is {audit.head}.")
    if resolved.num_classes and spec.num_classes not in (None, resolved.num_classes):
        raise CheckpointError(
            f"{checkpoint.path}: its classifier has {resolved.num_classes} classes, not "
            f"{spec.num_classes}. Set model.num_classes={resolved.num_classes}, "
            "or 0 to go without the classifier."
        )


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], checkpoint: Checkpoint) -> None:
    """Copy the weights into the model and see that they are numbers."""
    own = model.state_dict()
    chosen = {name: tensor for name, tensor in tensors.items() if name in own}
    for name, tensor in chosen.items():
        if own[name].is_floating_point() and not tensor.is_floating_point():
            raise CheckpointError(
                f"{checkpoint.path}: {name} is {tensor.dtype}, not floating point."
            )
    model.load_state_dict(chosen, strict=False)
    broken = [name for name, tensor in model.state_dict().items() if not _is_finite(tensor)]
    if broken:
        listed = ", ".join(broken[:4]) + (", …" if len(broken) > 4 else "")
        raise CheckpointError(
            f"{checkpoint.path}: NaN or Inf in {len(broken)} of its tensors ({listed}): "
            "the training diverged or the file is damaged. Take an earlier checkpoint."
        )


def _is_finite(tensor: Tensor) -> bool:
    """Whether all values are finite; `aminmax` needs no copy of the tensor."""
    if tensor.numel() == 0 or not tensor.is_floating_point():
        return True
    low, high = torch.aminmax(tensor)
    return bool(torch.isfinite(low) and torch.isfinite(high))
