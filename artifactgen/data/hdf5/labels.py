"""Labels of HDF5 files, and the names of their classes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import h5py
import numpy as np
from numpy.typing import NDArray

from artifactgen.data.base import MAX_CLASSES
from artifactgen.data.hdf5.file import where
from artifactgen.data.hdf5.index import Part
from artifactgen.errors import DataError

HighestLabel = tuple[int, int]
"""Row and label of the record with the highest label of a data set."""


def read_labels(
    labels: h5py.Dataset | None, part: Part
) -> tuple[NDArray[np.int64] | None, HighestLabel | None]:
    """All labels of a part, and the highest of them, if there is one from 0 on.

    Raises:
        DataError: it is beyond what a label can be.
    """
    if labels is None:
        return None, None
    values = labels[()]
    if not len(values):
        return values.astype(np.int64), None
    row = int(values.argmax())
    highest = int(values[row])
    if highest >= MAX_CLASSES:
        raise DataError(
            f"{where(labels)}: the label of {_record_id(part, row)} is {highest}; labels are "
            f"indices of classes, from 0 to at most {MAX_CLASSES - 1}, and negative where unknown."
        )
    return values.astype(np.int64), (row, highest) if highest >= 0 else None


def highest_label(found: Iterable[tuple[Part, HighestLabel | None]]) -> tuple[str, int] | None:
    """Id and label of the record with the highest label of all files."""
    labelled = [(highest, part) for part, highest in found if highest]
    if not labelled:
        return None
    (row, label), part = max(labelled, key=lambda of_part: of_part[0][1])
    return _record_id(part, row), label


def _record_id(part: Part, row: int) -> str:
    return replace(part, rows=range(row, row + 1)).ids()[0]


def class_attribute(file: h5py.File, labels: h5py.Dataset | None) -> tuple[str, ...]:
    """The attribute `classes` of the labels or of the file: names by index."""
    for node in (labels, file):
        if node is not None and "classes" in node.attrs:
            names = np.atleast_1d(node.attrs["classes"]).tolist()
            return tuple(n.decode() if isinstance(n, bytes) else str(n) for n in names)
    return ()
