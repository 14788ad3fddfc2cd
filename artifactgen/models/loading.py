"""Load a checkpoint into the model it was trained as: audited, complete, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from artifactgen.errors import CheckpointError
from artifactgen.models.adoption import adopt, filled, unset
from artifactgen.models.audit import LoadAudit
from artifactgen.models.base import Family, Network
from artifactgen.models.checkpoint import Checkpoint
from artifactgen.models.matching import Match
from artifactgen.models.stated import Stated

_NOTHING = Stated()


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model that computes what its checkpoint was trained to compute."""

    network: Network
    """On the CPU; nothing of its family's options left open."""
    audit: LoadAudit
    has_head: bool
    """Whether its classifier is a trained one; a randomly initialised one is never used."""
    stated: Stated = _NOTHING
    """What the checkpoint says beside its weights; names of classes only for its own classifier."""
    warnings: tuple[str, ...] = ()
    """Sentences on what is stated and contradicts what is used, where the weights fit both."""


def load_model(family: Family, checkpoint: Checkpoint, *, stated: Stated = _NOTHING) -> LoadedModel:
    """Build a model and fill all of it from the checkpoint.

    Head and pooling follow the checkpoint where the family's options leave them open, and so does
    what it states. Without a head in the checkpoint the model is built without one, if its family
    can.

    Args:
        family: the model's options.
        checkpoint: read, but not copied.
        stated: what it says beside its weights, see `read_stated`; a worker's family has it all.

    Raises:
        ConfigError: the model does not exist.
        CheckpointError: less than the whole encoder is in the checkpoint, or more of it, or its
            head has another number of classes, or weights are not finite.
    """
    claims = family.claims(stated)
    if lacking := filled(family, unset(family, claims)).lacks(checkpoint):
        raise CheckpointError(f"{checkpoint.path}: {lacking}")
    match, warnings = adopt(family, checkpoint, claims, stated)
    network, audit = match.network, match.audit
    _require_fit(audit, checkpoint, network)
    _require_classes(family, match, checkpoint)
    _fill(network.module, match.weights.tensors, checkpoint)
    has_head = audit.head == "loaded"
    if stated.classes and len(stated.classes) != match.outputs:
        stated = replace(stated, classes=())
    if own_head := network.family.own_head():
        return _with_own_head(LoadedModel(network, audit, True, stated, warnings), own_head)
    return LoadedModel(network, audit, has_head, stated, warnings)


def _with_own_head(loaded: LoadedModel, made_of: str) -> LoadedModel:
    """The model with a classifier that is nothing of its checkpoint, and its names of classes."""
    audit, names = replace(loaded.audit, head=made_of), loaded.network.family.class_names()
    source = {**loaded.stated.source, "classes": made_of}
    stated = replace(loaded.stated, classes=names, source=source)
    return replace(loaded, audit=audit, stated=stated)


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


def _require_classes(family: Family, match: Match, checkpoint: Checkpoint) -> None:
    outputs = match.outputs
    if match.audit.head.startswith("incomplete"):
        raise CheckpointError(f"{checkpoint.path}: the classifier is {match.audit.head}.")
    if outputs and family.num_classes not in (None, 0, outputs):
        raise CheckpointError(
            f"{checkpoint.path}: its classifier has {outputs} classes, not {family.num_classes}. "
            f"Set model.num_classes={outputs}; or go without the classifier: model.num_classes=0 "
            "generate_gradcam=false." + (f"\n{match.behind}" if match.behind else "")
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
