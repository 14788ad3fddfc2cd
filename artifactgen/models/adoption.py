"""Which of a checkpoint's words about its model to believe: its weights are the judge.

What nobody has set is taken from what the checkpoint states, unless its weights then do not fit.
What was set wins over what is stated; where both fit, as with a number of heads, which leaves no
trace in weights, the contradiction is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from artifactgen.errors import CheckpointError, ConfigError
from artifactgen.models.base import Family
from artifactgen.models.building import built
from artifactgen.models.checkpoint import Checkpoint
from artifactgen.models.claims import Claim, shown
from artifactgen.models.matching import Match, match_checkpoint, shapes
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
        [claim for claim in open_ if claim not in foreign],
        _Matching(family, checkpoint, stated.num_classes),
    )
    audit = replace(match.audit, taken=tuple(map(str, taken)), aside=stated.aside)
    if not audit.fits:
        return replace(match, audit=audit), ()
    disputed = [claim for claim in claims if not claim.is_met_by(match.network.family)]
    contrary = [
        claim for claim in disputed if claim not in foreign and _is_contrary(claim, match, open_)
    ]
    refuted = (*foreign, *(claim for claim in disputed if claim not in (*foreign, *contrary)))
    told = (*map(str, refuted), *_of_other_outputs(stated, match))
    behind = [f"{checkpoint.path}: {match.behind}"] if match.behind else []
    warnings = (_contradiction(claim, match, checkpoint) for claim in contrary)
    return replace(match, audit=replace(audit, refuted=told)), (*behind, *warnings)


@dataclass(slots=True)
class _Matching:
    """Matches of a family with some of the claims."""

    family: Family
    checkpoint: Checkpoint
    classes: int | None
    error: ConfigError | CheckpointError | None = None
    """The first, of a model that could not be built."""

    def __call__(self, claims: Sequence[Claim]) -> Match | None:
        """The match with these claims; None if the model cannot be built with them."""
        family = filled(self.family, claims)
        try:
            return match_checkpoint(family, self.checkpoint, classes=self.classes)
        except (ConfigError, CheckpointError) as error:
            self.error = self.error or error
            return None


def _closest(claims: list[Claim], matching: _Matching) -> tuple[Match, list[Claim]]:
    """The match with all of the claims, or with those that each bring the weights no further off.

    From the architecture that is named, claim by claim; those that did not do before others were
    taken get a second chance, if the weights do not fit by then.
    """
    best = matching(claims)
    if best is not None and (best.audit.fits or not claims):
        return best, claims
    taken = [claim for claim in claims if claim.option == "backbone"]
    left = [claim for claim in claims if claim not in taken]
    best = matching(taken) if left else best
    for _ in range(2):
        for claim in tuple(left):
            found = matching([*taken, claim])
            if found is not None and (best is None or found.audit.misfits <= best.audit.misfits):
                best, taken = found, [*taken, claim]
                left.remove(claim)
        if best is not None and best.audit.fits:
            break
    if best is None:
        assert matching.error is not None
        raise matching.error
    return best, taken


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


def _is_contrary(claim: Claim, match: Match, open_: Sequence[Claim]) -> bool:
    """Whether it is something else than what is used, and the weights fit it as well."""
    if not claim.adoptable:
        return True
    return claim not in open_ and _takes_the_same(match.network.family, claim)


def _takes_the_same(family: Family, claim: Claim) -> bool:
    """Whether the model would take the same weights with what is stated."""
    try:
        own, other = built(family), built(claim.put(family))
    except ConfigError:
        return False
    return shapes(other.module) == shapes(own.module)


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
