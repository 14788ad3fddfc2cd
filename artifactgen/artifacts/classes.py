"""For which classes maps are made."""

from __future__ import annotations

from collections.abc import Sequence

from artifactgen.errors import ConfigError, did_you_mean

PREDICTED = "predicted"


def resolve_classes(
    wanted: Sequence[int | str] | str | None, classes: Sequence[str]
) -> tuple[int, ...] | None:
    """Class indices, in order and without doubles; None where each record's prediction is meant.

    Raises:
        ConfigError: a class that there is not.
    """
    if wanted in (PREDICTED, [PREDICTED]):
        return None
    if wanted is None:
        return tuple(range(len(classes)))
    if not wanted or isinstance(wanted, str):
        raise ConfigError(
            f"target_classes={wanted!r}: give a list of indices or names, null or {PREDICTED}."
        )
    return tuple(dict.fromkeys(class_index(item, classes) for item in wanted))


def class_index(
    wanted: int | str, classes: Sequence[str], *, option: str = "target_classes"
) -> int:
    """The index of a class that is given by index or name.

    Raises:
        ConfigError: there is no such class; `option` says where it was asked for.
    """
    if isinstance(wanted, str) and wanted in classes:
        return classes.index(wanted)
    if isinstance(wanted, int) and 0 <= wanted < len(classes):
        return wanted
    raise ConfigError(
        f"{option}: there is no class {wanted!r} among {len(classes)}. "
        f"{did_you_mean(str(wanted), classes)}"
    )
