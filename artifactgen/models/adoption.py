"""Which of a checkpoint's words about its model to believe: its weights are the judge.

What nobody has set is taken from what the checkpoint states, unless its weights then do not fit.
What was set wins over what is stated; where both fit, as with a number of heads, which leaves no
trace in weights, the contradiction is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from artifactgen.errors import ConfigError
from artifactgen.models.audit import LoadAudit, audit_load
from artifactgen.models.base import Family, Network, head_classes
from artifactgen.models.building import built
from artifactgen.models.checkpoint import Checkpoint
from artifactgen.models.claims import Claim, shown
from artifactgen.models.head_search import Wanted, find_head, linear_beside
from artifactgen.models.heads import Head, with_head
from artifactgen.models.naming import NamedWeights, rename


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


def adopt(
    family: Family,
    checkpoint: Checkpoint,
    claims: Sequence[Claim],
    *,
    classes: int | None,
) -> tuple[Match, tuple[str, ...]]:
    """The best match of a family whose open options are filled with what is stated; and warnings.

    Args:
        family: as the user has it.
        checkpoint: to match.
        claims: what it states of the family's options.
        classes: number of classes that it states.

    Raises:
        ConfigError: the model does not exist, or does not take one of the options.
    """
    open_ = unset(family, claims)
    attempt = _Attempts(family, checkpoint, classes)
    taken = _believed(open_, attempt)
    if taken is None:
        return attempt.least(), ()
    match = attempt(taken)
    assert match is not None
    refuted = [claim for claim in open_ if claim not in taken]
    audit = replace(match.audit, taken=tuple(map(str, taken)), refuted=tuple(map(str, refuted)))
    match = replace(match, audit=audit)
    behind = [f"{checkpoint.path}: {match.behind}"] if match.behind else []
    return match, (*behind, *_contradictions(match, claims, checkpoint))


@dataclass(slots=True)
class _Attempts:
    """Matches of a family with some of the claims; the last of them is remembered."""

    family: Family
    checkpoint: Checkpoint
    classes: int | None
    _last: tuple[list[Claim], Match] | None = None
    _error: ConfigError | None = None

    def __call__(self, claims: list[Claim]) -> Match | None:
        """The match with these claims; None if the model cannot be built with them."""
        if self._last is not None and self._last[0] == claims:
            return self._last[1]
        family = filled(self.family, claims)
        try:
            match = match_checkpoint(family, self.checkpoint, classes=self.classes)
        except ConfigError as error:
            self._error = self._error or error
            return None
        self._last = (claims, match)
        return match

    def fit(self, claims: list[Claim]) -> bool:
        """Whether the checkpoint fits the model with these claims."""
        match = self(claims)
        return match is not None and match.audit.fits

    def least(self) -> Match:
        """The match with the fewest claims, to say what does not fit; or why there is none."""
        if self._last is None:
            assert self._error is not None
            raise self._error
        return self._last[1]


def _believed(claims: list[Claim], attempt: _Attempts) -> list[Claim] | None:
    """As many of the claims as the weights fit; None if they do not even fit without any."""
    wholes = [claims, *([c for c in claims if c is not left] for left in claims)]
    for most in wholes:
        if attempt.fit(most):
            return most
    naming = [claim for claim in claims if claim.option == "backbone"]
    for fewest in (naming, []):
        if attempt.fit(fewest):
            for claim in claims:
                if claim not in fewest and attempt.fit([*fewest, claim]):
                    fewest = [*fewest, claim]
            return fewest
    return None


def unset(family: Family, claims: Sequence[Claim]) -> list[Claim]:
    """Those claims about options that nobody has set."""
    return [claim for claim in claims if claim.adoptable and claim.current(family) is None]


def filled(family: Family, claims: Sequence[Claim]) -> Family:
    """The family with what is claimed."""
    for claim in claims:
        family = claim.put(family)
    return family


def match_checkpoint(family: Family, checkpoint: Checkpoint, *, classes: int | None) -> Match:
    """Build a model, and compare it with a checkpoint; no weight is copied.

    Raises:
        ConfigError: the model cannot be built.
    """
    family = replace(family, image_size=family.input_size())
    draft = built(family)
    weights = rename(checkpoint.state_dict, shapes(draft.module))
    weights, module, found = _with_outside_head(draft, weights, checkpoint, classes)
    decided = draft.family.decide(draft, weights)
    if isinstance(found, Head):
        decided = replace(decided, head=found.path)
    network = draft if decided == draft.family else built(decided)
    if module is not None:
        network.module.set_submodule(network.classifiers[0], module)
    audit = audit_load(
        network.module,
        weights,
        container=checkpoint.container,
        classifiers=present_classifiers(network),
        beside=family.beside_encoder(network),
    )
    outputs = head_classes(draft, weights)
    if family.num_classes == 0 and outputs:
        audit = replace(audit, head="unused")
    match = Match(network, weights, _with_head_told(audit, found, network), outputs)
    return replace(match, behind=_behind(match, checkpoint))


def _with_outside_head(
    draft: Network, weights: NamedWeights, checkpoint: Checkpoint, classes: int | None
) -> tuple[NamedWeights, nn.Module | None, Head | str]:
    """The weights with a classifier from beside the encoder, where it has none of its own."""
    family = draft.family
    own = head_classes(draft, weights) and family.head is None
    if family.num_classes == 0 or own:
        return weights, None, ""
    width = _width(draft)
    if width is None:
        return weights, None, linear_beside(checkpoint.state_dict, weights)
    wanted = Wanted(width, family.num_classes or classes, family.head, family.head_layers)
    found = find_head(checkpoint.state_dict, weights, shapes(draft.module), wanted)
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
        return replace(audit, head_note=found)
    traits, assumed = network.traits, found.assumed
    of_tokens = "its pooled patches" if traits.pools_patches else "its class token"
    fed = of_tokens if traits.has_class_token or traits.pools_patches else "its pooled features"
    told = f"{found}, fed with {fed}" + (f", {assumed} assumed" if assumed else "")
    return replace(audit, head_from=told)


def _contradictions(match: Match, claims: Sequence[Claim], checkpoint: Checkpoint) -> Iterator[str]:
    """What is stated, fits the weights as well as what is used, and is something else."""
    used = match.network.family
    for claim in claims:
        if claim.is_met_by(used) or (str(claim) in match.audit.refuted and claim.adoptable):
            continue
        if claim.adoptable and not _leaves_no_trace(claim, match.network):
            continue
        current = f"{claim.key}={shown(claim.current(used))}"
        advice = (
            f"The weights fit both, and the results differ: set {claim.key}={shown(claim.value)} "
            "unless you know better."
            if claim.adoptable
            else "Its training pooled by itself, in a way that is not known here."
        )
        yield (
            f"{checkpoint.path}: {claim.where} is {shown(claim.value)}, and {current} is used. "
            f"{advice}"
        )


def _leaves_no_trace(claim: Claim, network: Network) -> bool:
    """Whether the model would take the same weights with what is stated."""
    try:
        other = built(claim.put(network.family))
    except ConfigError:
        return False
    return shapes(other.module) == shapes(network.module)


def present_classifiers(network: Network) -> tuple[str, ...]:
    """Module paths of the classifiers that were built: of a distilled model, two."""
    names = network.module.state_dict().keys()
    return tuple(
        path for path in network.classifiers if any(name.startswith(f"{path}.") for name in names)
    )


def shapes(model: nn.Module) -> dict[str, torch.Size]:
    """Shapes of a model's parameters and buffers by their names."""
    return {name: tensor.shape for name, tensor in model.state_dict().items()}
