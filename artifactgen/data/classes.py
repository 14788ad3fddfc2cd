"""Names of the classes of a data set whose labels are numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable

from artifactgen.data.base import MAX_CLASSES
from artifactgen.errors import DataError

_NUMBER = re.compile(r"0|[1-9][0-9]{0,8}")


def given_names(
    found: Iterable[tuple[str, ...]], option: tuple[str, ...] | None
) -> tuple[str, ...]:
    """Names of the classes, as the option or the files have them; empty where neither does.

    Raises:
        DataError: the files have different ones.
    """
    different = {names for names in found if names}
    if option is None and len(different) > 1:
        raise DataError(f"The files name different classes: {sorted(different)}. Set data.classes.")
    return option or (different.pop() if different else ())


def names_of_texts(found: Iterable[str]) -> tuple[str, ...]:
    """Names of the classes whose labels are texts: those, sorted.

    Where all are whole numbers, all up to the highest: so each is the label that it says, and `10`
    does not come before `2`.

    Raises:
        DataError: a number that is too high for a label.
    """
    names = sorted(set(found))
    if not names or not all(_NUMBER.fullmatch(name) for name in names):
        return tuple(names)
    if (highest := max(map(int, names))) >= MAX_CLASSES:
        raise DataError(f"There is a label {highest}; at most {MAX_CLASSES - 1} is one.")
    return tuple(str(index) for index in range(highest + 1))


def class_names(given: tuple[str, ...], highest: tuple[str, int] | None) -> tuple[str, ...]:
    """The names that are given, else numbers up to the highest label.

    Raises:
        DataError: there are labels beyond the names.
    """
    record_id, label = highest or ("", -1)
    names = given or tuple(str(index) for index in range(label + 1))
    if label >= len(names):
        raise DataError(
            f"Labels go up to {label}, but there are {len(names)} classes: "
            f"{', '.join(names[:20])}{', …' if names[20:] else ''}. The record is {record_id}."
        )
    return names
