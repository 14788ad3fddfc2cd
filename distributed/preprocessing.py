"""Mean and std of the pixels: as asked for, as the checkpoint states, or as its family has them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from artifactgen.engine import Normalization
from artifactgen.errors import ConfigError
from artifactgen.models.base import Family
from artifactgen.models.claims import shown
from artifactgen.models.stated import Stated
from distributed.settings import Settings


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What is done to pixels, and what is to be said of it."""

    normalization: Normalization
    taken: tuple[str, ...]
    """What nobody set and the checkpoint states."""
    warnings: tuple[str, ...]
    of_floats: str


def build_normalization(
    settings: Settings, family: Family, stated: Stated, checkpoint: Path
) -> Preprocessing:
    """Mean and std: asked for with the data, else with the model, else stated, else the family's.

    Raises:
        ConfigError: what is asked for has another number of values than the model has channels.
    """
    own = dict(zip(("mean", "std"), family.normalization(), strict=True))
    used: dict[str, tuple[float, ...]] = {}
    taken, warnings = [], []
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
            taken.append(f"{name} {shown(said)} ({stated.source[name]})")
        elif said and not _is_equal(said, used[name]):
            warnings.append(
                f"{checkpoint}: {stated.source[name]} is {shown(said)}, and {section}.{name}="
                f"{shown(used[name])} is used. Set data.{name}={shown(said)} "
                "unless you know better."
            )
    of_floats = settings.data.mean is not None or settings.data.std is not None
    return Preprocessing(
        Normalization(used["mean"], used["std"], of_floats=of_floats),
        tuple(taken),
        tuple(warnings),
        "" if of_floats else _of_floats(stated, family, checkpoint),
    )


def _asked(settings: Settings, name: str) -> tuple[str, tuple[float, ...] | None]:
    """The section in which the user set it, and what it is set to."""
    of_data, of_model = getattr(settings.data, name), getattr(settings.model, name)
    return ("model", of_model) if of_data is None and of_model is not None else ("data", of_data)


def _stated(stated: Stated, name: str, family: Family) -> tuple[float, ...] | None:
    """What the checkpoint states, where it could be of this model."""
    values: tuple[float, ...] | None = getattr(stated, name)
    return values if values is not None and len(values) in (1, family.in_chans) else None


def _is_equal(some: tuple[float, ...], others: tuple[float, ...]) -> bool:
    """Whether they come to the same; one value stands for every channel."""
    longer = max(len(some), len(others))
    pairs = (values * (longer // len(values)) for values in (some, others))
    return all(math.isclose(a, b, abs_tol=1e-3) for a, b in zip(*pairs, strict=True))


def _of_floats(stated: Stated, family: Family, checkpoint: Path) -> str:
    mean, std = (_stated(stated, name, family) for name in ("mean", "std"))
    if mean is None or std is None or (_is_equal(mean, (0,)) and _is_equal(std, (1,))):
        return ""
    return (
        f"{checkpoint}: it was trained with mean {shown(mean)} and std {shown(std)} "
        f"({stated.source['mean']}), and these images are floating, which are taken as they are. "
        f"Set data.mean={shown(mean)} data.std={shown(std)} if they lie in [0, 1]."
    )
