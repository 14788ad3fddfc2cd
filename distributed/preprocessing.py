"""Mean and std of the pixels: as asked for, as the checkpoint states, or as its family has them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from artifactgen.data.base import Source
from artifactgen.engine import Normalization
from artifactgen.errors import ConfigError
from artifactgen.models.base import Family
from artifactgen.models.claims import shown
from artifactgen.models.loading import LoadedModel
from artifactgen.models.stated import Stated
from artifactgen.types import Framing
from distributed.inputs import asked_framing
from distributed.settings import Settings


def build_normalization(
    settings: Settings, family: Family, stated: Stated, checkpoint: Path
) -> Normalization:
    """Mean and std: asked for with the data, else with the model, else stated, else the family's.

    Raises:
        ConfigError: what is asked for has another number of values than the model has channels.
    """
    own = dict(zip(("mean", "std"), family.normalization(), strict=True))
    used: dict[str, tuple[float, ...]] = {}
    stated_in, doubts = [], []
    for name in ("mean", "std"):
        section, asked = _asked(settings, name)
        said = _stated(stated, name, family)
        used[name] = asked or said or own[name]
        if len(used[name]) not in (1, family.in_chans):
            raise ConfigError(
                f"{section}.{name} has {len(used[name])} values; give one, or one for each of "
                f"{family.in_chans} channels."
            )
        if said and not asked:
            stated_in.append(stated.source[name])
        elif said and not any(_is_equal(said, values) for values in _scaled(used[name])):
            doubts.append(
                f"{checkpoint}: {stated.source[name]} is {shown(said)}, and {section}.{name}="
                f"{shown(used[name])} is used. Set {section}.{name}={shown(said)} "
                "unless you know better."
            )
    is_own = not stated_in and not any(_asked(settings, name)[1] for name in used)
    if is_own and (doubt := family.doubt_of_normalization()):
        doubts.append(doubt)
    return Normalization(
        used["mean"],
        used["std"],
        of_floats=settings.data.mean is not None or settings.data.std is not None,
        max_value=settings.data.max_value,
        stated_in=", ".join(stated_in),
        doubts=tuple(doubts),
    )


def prepared(source: Source, settings: Settings, loaded: LoadedModel) -> Source:
    """The source with the model's input size, how pictures come to it, and if they are kept."""
    given: Any = source
    changes: dict[str, Any] = {"image_size": loaded.network.family.image_size}
    if hasattr(source, "framing"):
        changes["framing"] = build_framing(settings, loaded.network.family, loaded.stated)
    if hasattr(source, "keep_stored"):
        changes["keep_stored"] = settings.canvas == "source"
    framed: Source = replace(given, **changes)
    return framed


def build_framing(settings: Settings, family: Family, stated: Stated) -> Framing:
    """Asked for with the data, else as the checkpoint states, else the family's, one by one."""
    return replace(family.framing(), **{**stated.framing, **asked_framing(settings)})


def _asked(settings: Settings, name: str) -> tuple[str, tuple[float, ...] | None]:
    """The section in which the user set it, and what it is set to."""
    of_data, of_model = getattr(settings.data, name), getattr(settings.model, name)
    return ("model", of_model) if of_data is None and of_model is not None else ("data", of_data)


def _stated(stated: Stated, name: str, family: Family) -> tuple[float, ...] | None:
    """What the checkpoint states, where it could be of this model."""
    values: tuple[float, ...] | None = getattr(stated, name)
    return values if values is not None and len(values) in (1, family.in_chans) else None


def _scaled(values: tuple[float, ...]) -> tuple[tuple[float, ...], ...]:
    """Values as they are, and those for [0, 255] as for [0, 1]."""
    return values, tuple(value / 255 for value in values)


def _is_equal(some: tuple[float, ...], others: tuple[float, ...]) -> bool:
    """Whether they come to the same; one value stands for every channel."""
    longer = max(len(some), len(others))
    pairs = (values * (longer // len(values)) for values in (some, others))
    return all(math.isclose(a, b, abs_tol=1e-3) for a, b in zip(*pairs, strict=True))
