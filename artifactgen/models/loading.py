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
from artifactgen.models.base import Family, Network, head_classes
from artifactgen.models.checkpoint import Checkpoint
from artifactgen.models.naming import rename

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

    network: Network
    """On the CPU; nothing of its family's options left open."""
    audit: LoadAudit
    has_head: bool
    """Whether its classifier is a trained one; a randomly initialised one is never used."""


def load_model(family: Family, checkpoint: Checkpoint) -> LoadedModel:
    """Build a model and fill all of it from the checkpoint.

    Head and pooling follow the checkpoint where the family's options leave them open. Without a
    head in the checkpoint the model is built without one, if its family can.

    Raises:
        ConfigError: the model does not exist.
        CheckpointError: less than the whole encoder is in the checkpoint, or more of it, or its
            head has another number of classes, or weights are not finite.
    """
    draft = _build(family)
    weights = rename(checkpoint.state_dict, _shapes(draft.module))
    decided = draft.family.decide(draft, weights)
    network = draft if decided == draft.family else _build(decided)
    present = _classifiers(network)
    audit = audit_load(
        network.module,
        weights,
        container=checkpoint.container,
        classifiers=present,
        beside=family.beside_encoder(network),
    )
    if family.num_classes == 0 and head_classes(draft, weights):
        audit = dataclasses.replace(audit, head="unused")
    _require_fit(audit, checkpoint, network)
    _require_classes(family, decided, audit, checkpoint)
    _fill(network.module, weights.tensors, checkpoint)
    return LoadedModel(network, audit, has_head=audit.head == "loaded")


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


def _build(family: Family) -> Network:
    with _WithoutInitialisation():
        return family.build()


def _shapes(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


def _classifiers(network: Network) -> tuple[str, ...]:
    """Module paths of the classifiers that were built: of a distilled model, two."""
    names = network.module.state_dict().keys()
    return tuple(path for path in network.classifiers if f"{path}.weight" in names)


def _require_fit(audit: LoadAudit, checkpoint: Checkpoint, network: Network) -> None:
    if audit.fits:
        return
    family = network.family
    lines = [f"{checkpoint.path}: does not fit {family.name}: {audit.summary()}."]
    lines += _few("Missing", audit.missing)
    lines += _few("Other shape", [f"{n} {a} for {b}" for n, a, b in audit.mismatched])
    lines += _few("More than the model has", audit.surplus)
    raise CheckpointError("\n".join([*lines, family.hint(audit, checkpoint, network)]))


def _few(title: str, names: tuple[str, ...] | list[str], *, limit: int = 4) -> list[str]:
    if not names:
        return []
    more = f", and {len(names) - limit} more" if len(names) > limit else ""
    return [f"{title}: {', '.join(names[:limit])}{more}."]


def _require_classes(
    family: Family, decided: Family, audit: LoadAudit, checkpoint: Checkpoint
) -> None:
    if audit.head.startswith("incomplete"):
        raise CheckpointError(f"{checkpoint.path}: the classifier is {audit.head}.")
    if decided.num_classes and family.num_classes not in (None, decided.num_classes):
        raise CheckpointError(
            f"{checkpoint.path}: its classifier has {decided.num_classes} classes, not "
            f"{family.num_classes}. Set model.num_classes={decided.num_classes}, "
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
    broken = [name for name in chosen if not _is_finite(own[name])]
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
