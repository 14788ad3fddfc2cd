"""Match a checkpoint to a model: its weights under the model's names, its classifier, an audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from artifactgen.models.audit import LoadAudit, audit_load
from artifactgen.models.base import Family, Network, head_classes
from artifactgen.models.building import built
from artifactgen.models.checkpoint import Checkpoint
from artifactgen.models.claims import shown
from artifactgen.models.head_search import Wanted, find_head, unread_beside
from artifactgen.models.heads import Head, with_head
from artifactgen.models.naming import NamedWeights, rename

_NO_PLACE = "the model's own is no single linear layer, in the place of which it could be put"


@dataclass(frozen=True, slots=True)
class Match:
    """A model, and how a checkpoint fits it."""

    network: Network
    weights: NamedWeights
    audit: LoadAudit
    outputs: int
    """Of the classifier in the checkpoint; 0 if there is none."""
    behind: str = ""
    """What takes these outputs and is left out: a training may keep a classifier of a pre-training
    and put its own behind it."""
    told: tuple[str, ...] = ()
    """What nobody set or stated and its weights tell: the size of the images."""


def match_checkpoint(family: Family, checkpoint: Checkpoint, *, classes: int | None) -> Match:
    """Build a model, and compare it with a checkpoint; no weight is copied.

    Args:
        family: to build.
        checkpoint: to compare it with.
        classes: as many as it states.

    Raises:
        ConfigError: the model cannot be built.
    """
    draft, weights, told = _draft(family, checkpoint)
    weights, module, found = _with_outside_head(draft, weights, checkpoint, classes)
    decided = draft.family.decide(draft, weights)
    if isinstance(found, Head):
        decided = replace(decided, head=found.path)
    network = draft if decided == draft.family else built(decided)
    if module is not None:
        network.module.set_submodule(network.classifiers[0], module)
    audit = _audit(family, network, weights, checkpoint)
    outputs = head_classes(draft, weights)
    if family.num_classes == 0 and outputs:
        audit = replace(audit, head="unused")
    match = Match(network, weights, _with_head_told(audit, found, network), outputs, told=told)
    return replace(match, behind=_behind(match, checkpoint))


def misfits(family: Family, checkpoint: Checkpoint) -> tuple[int, int]:
    """How far a checkpoint is off an encoder, as its options have it: by names, then by shapes.

    Names go first: they tell depth and parts, whatever the width.

    Raises:
        ConfigError: the model cannot be built.
    """
    draft, weights = _drafted(family, family.input_size(), checkpoint)
    audit = _audit(family, draft, weights, checkpoint)
    tells_size = family.image_size is None and family.trained_size(draft, weights)
    return len(audit.missing) + len(audit.surplus), 0 if tells_size else len(audit.mismatched)


def adapted(family: Family, match: Match) -> Match:
    """A match whose weights of another shape are made to fit what the user set, where they can be.

    Args:
        family: as the user has it.
        match: of the family with all that was taken from the checkpoint.
    """
    audit, weights = match.audit, match.weights
    if audit.missing or audit.surplus or not audit.mismatched:
        return match
    made, told = family.adapted(match.network, weights.tensors, audit.mismatched)
    if not made:
        return match
    weights = replace(weights, tensors={**weights.tensors, **made})
    audit = replace(audit, matched=audit.total, mismatched=(), adapted=told)
    return replace(match, weights=weights, audit=audit)


def _draft(family: Family, checkpoint: Checkpoint) -> tuple[Network, NamedWeights, tuple[str, ...]]:
    """The model with what is left to the checkpoint undecided, and the weights under its names.

    And a sentence on the size of images, where it is left open and the weights tell it.
    """
    draft, weights = _drafted(family, family.input_size(), checkpoint)
    size = family.trained_size(draft, weights) if family.image_size is None else None
    if size is not None:
        other, renamed = _drafted(family, size, checkpoint)
        if _wrong(other, renamed) < _wrong(draft, weights):
            return other, renamed, (f"image_size {shown(size)} (its position embeddings)",)
    return draft, weights, ()


def _drafted(
    family: Family, size: tuple[int, int], checkpoint: Checkpoint
) -> tuple[Network, NamedWeights]:
    draft = built(replace(family, image_size=size))
    return draft, _named(checkpoint.state_dict, draft)


def _named(state_dict: Mapping[str, Tensor], draft: Network) -> NamedWeights:
    """The weights under the model's names, by whichever of its layouts fits them best."""
    own = shapes(draft.module)
    found = [rename(state_dict, own)]
    for title, layout in draft.layouts.items():
        theirs = {name: own[mine] for name, mine in layout.items()}
        weights = rename(state_dict, theirs)
        tensors = {layout.get(name, name): tensor for name, tensor in weights.tensors.items()}
        found.append(replace(weights, tensors=tensors, naming=title))
    return max(found, key=lambda weights: _fit(weights.tensors, own))


def _fit(tensors: Mapping[str, Tensor], own: Mapping[str, torch.Size]) -> tuple[int, int]:
    """How many have a place in the model with their shape, and by their name alone."""
    named = [name for name in tensors if name in own]
    return sum(tensors[name].shape == own[name] for name in named), len(named)


def _wrong(draft: Network, weights: NamedWeights) -> int:
    """Number of weights of another shape than the model's."""
    own, found = shapes(draft.module), weights.tensors
    return sum(name in found and found[name].shape != shape for name, shape in own.items())


def _audit(
    family: Family, network: Network, weights: NamedWeights, checkpoint: Checkpoint
) -> LoadAudit:
    return audit_load(
        network.module,
        weights,
        container=checkpoint.container,
        classifiers=present_classifiers(network),
        beside=family.beside_encoder(network),
    )


def _with_outside_head(
    draft: Network, weights: NamedWeights, checkpoint: Checkpoint, classes: int | None
) -> tuple[NamedWeights, nn.Module | None, Head | str]:
    """The weights with a classifier from beside the encoder, where it has none of its own."""
    family = draft.family
    own = head_classes(draft, weights) and family.head is None
    if family.num_classes == 0 or own:
        return weights, None, ""
    width = _width(draft)
    tensors, names = checkpoint.state_dict, shapes(draft.module)
    if width is None:
        return weights, None, unread_beside(tensors, weights, names, _NO_PLACE)
    wanted = Wanted(width, family.num_classes, classes, family.head, family.head_layers)
    found = find_head(tensors, weights, names, wanted)
    if isinstance(found, str):
        return weights, None, found
    weights, module = with_head(weights, found, draft.classifiers[0])
    return weights, module, found


def _behind(match: Match, checkpoint: Checkpoint) -> str:
    """A sentence on a classifier that takes what the model's own classifier gives."""
    if match.audit.head != "loaded" or match.audit.head_from:
        return ""
    own = shapes(match.network.module)
    found = find_head(checkpoint.state_dict, match.weights, own, Wanted(match.outputs))
    if not isinstance(found, Head):
        return ""
    return (
        f"{found} lies beside the encoder and takes the {match.outputs} outputs of its classifier. "
        "It is left out, and classes are those outputs."
    )


def _width(draft: Network) -> int | None:
    """What the model's classifier takes, if it is one linear layer; some are built without it."""
    if len(draft.classifiers) != 1:
        return None
    path = draft.classifiers[0]
    layer = dict(draft.module.named_modules()).get(path)
    if not isinstance(layer, nn.Linear) and draft.family.num_classes is None:
        layer = dict(built(replace(draft.family, num_classes=2)).module.named_modules()).get(path)
    return layer.in_features if isinstance(layer, nn.Linear) else None


def _with_head_told(audit: LoadAudit, found: Head | str, network: Network) -> LoadAudit:
    if isinstance(found, str):
        return replace(audit, head_note=found if audit.fits else "")
    traits, assumed = network.traits, found.assumed
    of_tokens = "its pooled patches" if traits.pools_patches else "its class token"
    fed = of_tokens if traits.has_class_token or traits.pools_patches else "its pooled features"
    told = f"{found}, fed with {fed}" + (f", {assumed} assumed" if assumed else "")
    return replace(audit, head_from=told)


def present_classifiers(network: Network) -> tuple[str, ...]:
    """Module paths of the classifiers that were built: of a distilled model, two."""
    names = network.module.state_dict().keys()
    return tuple(
        path for path in network.classifiers if any(name.startswith(f"{path}.") for name in names)
    )


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    """Shapes of a model's parameters and buffers by their names."""
    return {name: tensor.shape for name, tensor in model.state_dict().items()}
