"""Names of many shards in one: `train-{000..009}.tar`, as bash and `webdataset` expand them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from artifactgen.errors import DataError

_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST = 1_000_000


def expand_braces(pattern: str) -> list[str]:
    """The names that a pattern with `{000..009}` and `{a,b}` stands for, in order.

    >>> expand_braces("{a,b}-{08..10}.tar")[:4]
    ['a-08.tar', 'a-09.tar', 'a-10.tar', 'b-08.tar']

    Raises:
        DataError: a brace is not closed, or it stands for more than a million names.
    """
    names: list[str] = []
    for name in _expand(pattern):
        names.append(name)
        if len(names) > _MOST:
            raise DataError(f"{pattern} stands for more than {_MOST:,} files.")
    return names


def _expand(pattern: str) -> Iterator[str]:
    start = pattern.find("{")
    if start < 0:
        yield pattern
        return
    end = _closing(pattern, start)
    inner = pattern[start + 1 : end]
    for choice in _choices(inner):
        for rest in _expand(pattern[end + 1 :]):
            yield pattern[:start] + choice + rest


def _closing(pattern: str, start: int) -> int:
    depth = 0
    for place in range(start, len(pattern)):
        depth += {"{": 1, "}": -1}.get(pattern[place], 0)
        if not depth:
            return place
    raise DataError(f"{pattern}: a brace is not closed. Write ranges as {{000..009}}.")


def _choices(inner: str) -> Iterator[str]:
    found = _RANGE.fullmatch(inner)
    if found is None:
        for part in _parts(inner):
            yield from _expand(part)
        return
    first, last = int(found[1]), int(found[2])
    padded = any(text.startswith("0") and len(text) > 1 for text in found.groups())
    width = max(map(len, found.groups())) if padded else 0
    step = 1 if first <= last else -1
    yield from (f"{number:0{width}d}" for number in range(first, last + step, step))


def _parts(inner: str) -> list[str]:
    """The parts between commas that are in no inner brace."""
    parts, depth = [""], 0
    for char in inner:
        depth += {"{": 1, "}": -1}.get(char, 0)
        if char == "," and not depth:
            parts.append("")
        else:
            parts[-1] += char
    return parts
