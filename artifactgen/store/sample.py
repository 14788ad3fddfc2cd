"""A few records of a merged scope that stand for all of them, read from its manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from artifactgen.types import UNKNOWN_LABEL

_FIXED = ("record_id", "position", "label", "prediction")
_FILES = "_files"


@dataclass(frozen=True, slots=True)
class Listed:
    """A record as the manifest lists it."""

    record_id: str
    position: int
    """Position in the data set's split."""
    label: int
    prediction: int | None
    files: Mapping[str, tuple[str, ...]]
    """Kind of artifact to its pictures, relative to the output directory."""


def sample_evenly(manifest: Path, *, most: int) -> tuple[list[Listed], int]:
    """At most `most` records without failure, as many of each class, and how many there are in all.

    A class is a label; without labels, a prediction. The records of a class lie evenly spaced in
    the data set's order, so that the choice follows from the manifest alone. They come class by
    class. Two passes, one row group at a time: memory does not grow with the manifest.
    """
    # First pass: how many of each class. Second: those whose numbers among them were chosen.
    by_label, by_prediction = _count(manifest, "label"), _count(manifest, "prediction")
    column = "prediction" if by_label.keys() <= {UNKNOWN_LABEL} else "label"
    counts = by_prediction if column == "prediction" else by_label
    wanted = {
        key: [(2 * i + 1) * counts[key] // (2 * quota) for i in range(quota)]
        for key, quota in quotas(counts, most=most).items()
    }
    found = sorted(_find(manifest, column, wanted), key=lambda item: (item[0], item[1].position))
    return [record for _, record in found], by_label.total()


def quotas(counts: Mapping[int, int], *, most: int) -> dict[int, int]:
    """How many of each class: equally many, save where a class has no more.

    Where there are more classes than places, classes are taken evenly over their order.
    """
    keys = sorted(counts)
    if len(keys) > most:
        return {keys[(2 * i + 1) * len(keys) // (2 * most)]: 1 for i in range(most)}
    given = dict.fromkeys(keys, 0)
    while unfilled := [key for key in keys if given[key] < counts[key]]:
        if sum(given.values()) + len(unfilled) > most:
            break
        for key in unfilled:
            given[key] += 1
    return given


def _count(manifest: Path, column: str) -> Counter[int]:
    counts: Counter[int] = Counter()
    for _, keys in _keys(manifest, column):
        values, numbers = np.unique(keys[keys != _FAILED], return_counts=True)
        counts.update(dict(zip(values.tolist(), numbers.tolist(), strict=True)))
    return counts


_FAILED = np.iinfo(np.int64).min


def _keys(manifest: Path, column: str) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each row group with the classes of its records; unknown ones are `UNKNOWN_LABEL`."""
    with pq.ParquetFile(manifest) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=[column, "error"])
            keys = table[column].fill_null(UNKNOWN_LABEL).to_numpy()
            yield group, np.where(table["error"].is_null().to_numpy(), keys, _FAILED)


def _find(
    manifest: Path, column: str, wanted: Mapping[int, list[int]]
) -> Iterator[tuple[int, Listed]]:
    """The wanted records of each class, by their number among those of the class."""
    seen: Counter[int] = Counter()
    for group, keys in _keys(manifest, column):
        for key, numbers in wanted.items():
            rows = np.flatnonzero(keys == key)
            here = [rows[n - seen[key]] for n in numbers if 0 <= n - seen[key] < len(rows)]
            seen[key] += len(rows)
            for record in _read(manifest, group, here):
                yield key, record


def _read(manifest: Path, group: int, rows: list[int]) -> Iterator[Listed]:
    if not rows:
        return
    with pq.ParquetFile(manifest) as file:
        files = [name for name in file.schema_arrow.names if name.endswith(_FILES)]
        table = file.read_row_group(group, columns=[*_FIXED, *files]).take(rows)
    for line in table.to_pylist():
        yield _listed(line, files)


def _listed(line: Mapping[str, Any], files: list[str]) -> Listed:
    pictures = {name.removesuffix(_FILES): tuple(line[name] or ()) for name in files}
    return Listed(
        record_id=line["record_id"],
        position=line["position"],
        label=line["label"],
        prediction=line["prediction"],
        files=pictures,
    )
