"""Which of a checkpoint's words about its model to believe: its weights are the judge.

What nobody has set is taken from what the checkpoint states, unless its weights then do not fit.
What was set wins over what is stated; where both fit, as with a number of heads, which leaves no
trace in weights, the contradiction is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from artifactgen.errors import CheckpointError, ConfigError
from artifactgen.models.base import Family
from artifactgen.models.building import built
from artifactgen.models.checkpoint import Checkpoint
from artifactgen.models.claims import Claim, shown
from artifactgen.models.matching import Match, adapted, match_checkpoint, misfits, shapes
from artifactgen.models.stated import Stated


def adopt(
    family: Family, checkpoint: Checkpoint, claims: Sequence[Claim], stated: Stated
) -> tuple[Match, tuple[str, ...]]:
    """The best match of a family whose open options are filled with what is stated; and warnings.

    Args:
        family: as the user has it.
        checkpoint: to match.
        claims: what it states of the family's options.
        stated: all that it states.

    Raises:
        ConfigError: the model does not exist, or does not take one of the options.
        CheckpointError: there is no head as the user describes it.
    """
    open_ = unset(family, claims)
    foreign = _of_another(family, claims, open_)
    match, taken = _closest(
        family, checkpoint, [claim for claim in open_ if claim not in foreign], stated.num_classes
    )
    match = adapted(family, match)
    told = (*map(str, taken), *match.told)
    audit = replace(match.audit, taken=told, aside=stated.aside)
    if not audit.fits:
        return replace(match, audit=audit), ()
    disputed = [claim for claim in claims if _is_disputed(claim, match)]
    contrary = [
        claim for claim in disputed if claim not in foreign and _is_contrary(claim, match, open_)
    ]
    refuted = (*foreign, *(claim for claim in disputed if claim not in (*foreign, *contrary)))
    told = (*map(str, refuted), *_of_other_outputs(stated, match))
    behind = [f"{checkpoint.path}: {match.behind}"] if match.behind else []
    warnings = (_contradiction(claim, match, checkpoint) for claim in contrary)
    return replace(match, audit=replace(audit, refuted=told)), (*behind, *warnings)


def _closest(
    family: Family, checkpoint: Checkpoint, claims: list[Claim], classes: int | None
) -> tuple[Match, list[Claim]]:
    """The match with all of the claims, or else with those that the weights do not refute."""
    failed: ConfigError | CheckpointError | None = None
    try:
        match = match_checkpoint(filled(family, claims), checkpoint, classes=classes)
    except (ConfigError, CheckpointError) as error:
        if not claims:
            raise
        failed = error
    else:
        if match.audit.fits or not claims:
            return match, claims
    taken = _agreeing(family, checkpoint, claims)
    try:
        return match_checkpoint(filled(family, taken), checkpoint, classes=classes), taken
    except ConfigError as error:
        # What is wrong with all that is stated tells more than what is missing without it.
        raise failed or error from error


def _agreeing(family: Family, checkpoint: Checkpoint, claims: list[Claim]) -> list[Claim]:
    """From the architecture that is named, claim by claim, what brings the weights no further off.

    A claim with which the model cannot be built gets a second chance behind the others: a width may
    need another number of heads.
    """
    taken = [claim for claim in claims if claim.option == "backbone"]
    least = _misfits(family, checkpoint, taken)
    left = [claim for claim in claims if claim not in taken]
    for _ in range(2):
        unbuilt = []
        for claim in left:
            found = _misfits(family, checkpoint, [*taken, claim])
            if found is None:
                unbuilt.append(claim)
            elif least is None or found <= least:
                least, taken = found, [*taken, claim]
        left = unbuilt
    return taken


def _misfits(family: Family, checkpoint: Checkpoint, claims: list[Claim]) -> tuple[int, int] | None:
    """How far off the weights are with these claims; None if the model cannot be built."""
    try:
        return misfits(filled(family, claims), checkpoint)
    except ConfigError:
        return None


def _of_another(family: Family, claims: Sequence[Claim], open_: list[Claim]) -> list[Claim]:
    """Claims about a model, where they name an architecture that is not the one that was set."""
    named = next((c for c in claims if c.option == "backbone" and c not in open_), None)
    if named is None or _takes_the_same(filled(family, open_), named):
        return []
    return [claim for claim in claims if claim.option != "image_size"]


def unset(family: Family, claims: Sequence[Claim]) -> list[Claim]:
    """Those claims about options that nobody has set."""
    return [claim for claim in claims if claim.adoptable and claim.current(family) is None]


def filled(family: Family, claims: Sequence[Claim]) -> Family:
    """The family with what is claimed."""
    for claim in claims:
        family = claim.put(family)
    return family


def _is_disputed(claim: Claim, match: Match) -> bool:
    """Whether something else is used; a size for which weights were resampled is what it was."""
    of_size = claim.option == "image_size" and match.audit.adapted
    return not (of_size or claim.is_met_by(match.network.family))


def _is_contrary(claim: Claim, match: Match, open_: Sequence[Claim]) -> bool:
    """Whether it is something else than what is used, fits the weights as well, and matters."""
    if not claim.adoptable:
        return True
    family = match.network.family
    if claim in open_ or not _takes_the_same(family, claim):
        return False
    return claim.option == "image_size" or not _computes_the_same(family, claim, match)


def _takes_the_same(family: Family, claim: Claim) -> bool:
    """Whether the model would take the same weights with what is stated."""
    try:
        own, other = built(family), built(claim.put(family))
    except ConfigError:
        return False
    return shapes(other.module) == shapes(own.module)


def _computes_the_same(family: Family, claim: Claim, match: Match) -> bool:
    """Whether an image has the same embedding with what is stated: one name may stand for another.

    The classifier is the same in both, and has no part in it.
    """
    generator = torch.Generator().manual_seed(0)
    x_BCHW = torch.randn(1, family.in_chans, *family.input_size(), generator=generator)
    own, other = (_embedding(each, match, x_BCHW) for each in (family, claim.put(family)))
    return own.shape == other.shape and torch.allclose(own, other, rtol=1e-4, atol=1e-5)


def _embedding(family: Family, match: Match, x_BCHW: Tensor) -> Tensor:
    """What the family's encoder gives with the matched weights, (B, D)."""
    network = built(family)
    own = shapes(network.module)
    named = match.weights.tensors.items()
    weights = {name: tensor for name, tensor in named if own.get(name) == tensor.shape}
    network.module.load_state_dict(weights, strict=False)
    with torch.inference_mode():
        return network.embed(network.forward(x_BCHW, classify=False)[0])


def _contradiction(claim: Claim, match: Match, checkpoint: Checkpoint) -> str:
    current = f"{claim.key}={shown(claim.current(match.network.family))}"
    advice = (
        f"The weights fit both, and the results differ: set {claim.key}={shown(claim.value)} "
        "unless you know better."
        if claim.adoptable
        else "Its training pooled by itself, in a way that is not known here."
    )
    return (
        f"{checkpoint.path}: {claim.where} is {shown(claim.value)}, and {current} is used. {advice}"
    )


def _of_other_outputs(stated: Stated, match: Match) -> Iterator[str]:
    """What is stated of classes, and is not of as many as the classifier has outputs."""
    named, outputs = len(stated.classes), match.outputs
    if outputs and stated.num_classes not in (None, outputs):
        yield f"num_classes {stated.num_classes} ({stated.source['num_classes']})"
    if outputs and named not in (0, outputs):
        yield f"names of {named} classes ({stated.source['classes']})"
