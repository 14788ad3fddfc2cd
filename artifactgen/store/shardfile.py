"""A shard's rows as an HDF5 file: columns with one leading dimension, and attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from artifactgen.store.atomic import replacing
from artifactgen.store.text import storable

Columns = Mapping[str, NDArray[Any]]


def write_columns(
    path: Path,
    columns: Columns,
    *,
    strings: Mapping[str, Sequence[str]],
    attributes: Mapping[str, Any] | None = None,
    temp_dir: Path,
) -> None:
    """Write columns of n rows each, atomically and durably.

    Args:
        path: final place.
        columns: name to array (n, …).
        strings: name to n texts, stored as UTF-8, see `storable`.
        attributes: plain values to store on the file.
        temp_dir: see `replacing`.
    """
    with replacing(path, temp_dir=temp_dir) as temp, h5py.File(temp, "w", libver="latest") as file:
        for name, texts in strings.items():
            data = [storable(text) for text in texts]
            file.create_dataset(name, data=data, shape=(len(data),), dtype=h5py.string_dtype())
        for name, array in columns.items():
            file.create_dataset(name, data=array)
        file.attrs.update(attributes or {})


def read_columns(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, list[str]]]:
    """Read what `write_columns` wrote: the arrays, and the texts."""
    arrays: dict[str, NDArray[Any]] = {}
    strings: dict[str, list[str]] = {}
    with h5py.File(path, "r", locking=False) as file:
        for name, dataset in file.items():
            if h5py.check_string_dtype(dataset.dtype):
                strings[name] = list(dataset.asstr()[()])
            else:
                arrays[name] = np.asarray(dataset[()])
    return arrays, strings
