"""A few records out of many, evenly spaced, where not all can be looked at."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sized
from typing import Any

from artifactgen.data.listing import Listing


def evenly(listings: Mapping[str, Listing], most: int) -> list[dict[str, Any]]:
    """At most so many rows, evenly spaced over all listings, those of each in their order."""
    places = even_rows(listings, most)
    return [found for name, row in places for found in listings[name].read(row, row + 1)]


def even_rows(splits: Mapping[str, Sized], most: int) -> Iterator[tuple[str, int]]:
    """Splits and rows of at most so many records, evenly spaced over all splits, in order."""
    wanted, first = deque(even_places(sum(map(len, splits.values())), most)), 0
    for name, index in splits.items():
        while wanted and wanted[0] < first + len(index):
            yield name, wanted.popleft() - first
        first += len(index)


def even_places(total: int, most: int) -> Iterator[int]:
    """At most so many of the numbers below `total`, evenly spaced."""
    count = min(most, total)
    return (((2 * i + 1) * total) // (2 * count) for i in range(count))
