"""What a set of HDF5 files holds: every check that needs no image, made once by the driver."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from artifactgen.data.base import Catalog, is_of_the_file
from artifactgen.data.classes import class_names, given_names
from artifactgen.data.content import files_digest
from artifactgen.data.hdf5.file import (
    Axes,
    AxesOption,
    describe,
    find_axes,
    find_dataset,
    open_checked,
    read_strings,
    sample_dtype,
    system_errors,
    where,
)
from artifactgen.data.hdf5.index import (
    Hdf5Index,
    Part,
    Rows,
    duplicates,
    hash_ids,
    stream_ids,
)
from artifactgen.data.hdf5.labels import (
    HighestLabel,
    class_attribute,
    highest_label,
    read_labels,
)
from artifactgen.data.splits import SPLITS
from artifactgen.data.walking import files_matching
from artifactgen.errors import DataError


@dataclass(frozen=True, slots=True)
class Keys:
    """Names of the data sets; below the group of a split where splits are groups."""

    images: str = "images"
    labels: str = "labels"
    record_ids: str = "record_ids"
    split: str = "split"


@dataclass(frozen=True, slots=True)
class _Table:
    """What one data set of images and its companions say."""

    part: Part
    splits: Mapping[str, Rows]
    channels: int
    dtype: np.dtype[Any]
    """Of the samples."""
    highest: HighestLabel | None
    classes: tuple[str, ...]
    id_hashes: NDArray[np.int64]
    digest: str


def scan_files(
    pattern: str,
    *,
    keys: Keys,
    layout: AxesOption,
    classes: tuple[str, ...] | None,
) -> Catalog:
    """Scan one file, or all that a glob matches, sorted by path.

    Raises:
        DataError: no file, a file that is not as configured, or ids that are not unique.
    """
    paths = files_matching(pattern, of_folder="*.h5")
    tables = [table for path in paths for table in _scan_file(path, keys, layout)]
    _check_alike(tables)
    _check_ids(tables)
    highest = highest_label((table.part, table.highest) for table in tables)
    given = given_names((table.classes for table in tables), classes)
    names = class_names(given, highest)
    parts: dict[str, list[Part]] = {}
    for table in tables:
        for split, rows in table.splits.items():
            name = SPLITS.get(split.lower(), split)
            parts.setdefault(name, []).append(replace(table.part, rows=rows))
    facts = repr((names, [table.digest for table in tables]))
    return Catalog(
        splits={split: Hdf5Index.of(parts[split]) for split in sorted(parts)},
        classes=names,
        channels=tables[0].channels,
        dtype=str(tables[0].dtype),
        identity=hashlib.sha256(facts.encode()).hexdigest(),
        content=files_digest(paths),
        highest_label=None if given else highest,
    )


def _scan_file(path: Path, keys: Keys, layout: AxesOption) -> list[_Table]:
    with open_checked(path) as file:
        try:
            with system_errors(str(path)):
                return [_scan_table(file, group, keys, layout) for group in _groups(file, keys)]
        except (OSError, KeyError, RuntimeError) as error:
            if isinstance(error, OSError) and not is_of_the_file(error):
                raise
            raise DataError(f"{path} is damaged: {error}") from error


def _groups(file: h5py.File, keys: Keys) -> list[str]:
    """The groups that hold images, each a split; [""] where the images lie at the top."""
    at_top = find_dataset(file, keys.images) is not None
    groups = [
        name for name in sorted(file) if find_dataset(file, f"{name}/{keys.images}") is not None
    ]
    if at_top and groups:
        raise DataError(
            f"{file.filename}: {keys.images} lies both at the top and in {', '.join(groups)}. "
            "Leave one of them, or set data.images_key."
        )
    if not at_top and not groups:
        raise DataError(
            f"{file.filename}: no data set {keys.images}, nor <split>/{keys.images}. "
            f"{describe(file)} Set data.images_key."
        )
    return groups or [""]


def _scan_table(file: h5py.File, group: str, keys: Keys, layout: AxesOption) -> _Table:
    images = find_dataset(file, f"{group}/{keys.images}")
    assert images is not None
    axes = find_axes(images, layout)
    labels = _companion(images, group, keys, "labels", kinds="iu", what="integers")
    ids = _companion(images, group, keys, "record_ids", kinds="iuSO", what="strings or integers")
    split = _companion(images, group, keys, "split", kinds="SO", what="strings")
    if group and split is not None:
        raise DataError(f"{where(split)}: splits are groups here; remove one of the two.")
    stem = Path(file.filename).stem
    splits = {group: range(len(images))} if group else _splits(split, len(images), stem)
    part = Part(
        path=file.filename,
        images=images.name,
        labels=None if labels is None else labels.name,
        record_ids=None if ids is None else ids.name,
        id_prefix=f"{stem}_{group}" if group else stem,
        layout=axes,
        rows=range(len(images)),
    )
    label_values, highest = read_labels(labels, part)
    return _Table(
        part=part,
        splits=splits,
        channels=1 if axes == "HW" else images.shape[axes.index("C") + 1],
        dtype=sample_dtype(images.dtype),
        highest=highest,
        classes=class_attribute(file, labels),
        id_hashes=hash_ids(ids),
        digest=_digest(images, axes, splits, label_values, ids),
    )


def _companion(
    images: h5py.Dataset, group: str, keys: Keys, role: str, *, kinds: str, what: str
) -> h5py.Dataset | None:
    """A data set with one value for each image; None where it has its usual name and is absent."""
    key = getattr(keys, role)
    dataset = find_dataset(images.file, f"{group}/{key}")
    if dataset is None:
        if key == getattr(Keys(), role):
            return None
        raise DataError(
            f"{images.file.filename}: no data set {f'{group}/{key}'.strip('/')}. "
            f"{describe(images.file)} Set data.{role}_key."
        )
    if dataset.shape != (len(images),):
        raise DataError(
            f"{where(dataset)} has shape {dataset.shape}; {images.name} has {len(images)} images."
        )
    is_object = dataset.dtype.kind == "O" and h5py.check_string_dtype(dataset.dtype) is None
    if dataset.dtype.kind not in kinds or is_object:
        raise DataError(f"{where(dataset)} holds {dataset.dtype}; expected {what}.")
    return dataset


def _splits(split: h5py.Dataset | None, n_images: int, stem: str) -> dict[str, Rows]:
    """Rows of each split that the file names; else all rows are the split of the file's name."""
    if split is None:
        words = re.split(r"[^a-z0-9]", stem.lower())
        named = {SPLITS[word] for word in words if word in SPLITS}
        return {named.pop() if len(named) == 1 else "test": range(n_images)}
    names, codes = np.unique(read_strings(split, 0, n_images), return_inverse=True)
    return {str(name): _as_rows(np.flatnonzero(codes == i)) for i, name in enumerate(names)}


def _as_rows(rows: NDArray[np.int64]) -> Rows:
    """A range where the rows are one, which costs nothing to pickle."""
    first, last = int(rows[0]), int(rows[-1])
    return range(first, last + 1) if last - first + 1 == len(rows) else rows


def _check_alike(tables: Sequence[_Table]) -> None:
    """All samples of a data set go into the same batches."""
    first = tables[0]
    for table in tables[1:]:
        if (table.channels, table.dtype) != (first.channels, first.dtype):
            raise DataError(
                f"{table.part.path}: {table.part.images} has {table.channels} channels of "
                f"{table.dtype}, but {first.part.path} has {first.channels} of {first.dtype}."
            )
        if (table.part.record_ids is None) != (first.part.record_ids is None):
            raise DataError(
                f"Of {first.part.path} and {table.part.path} only one has record ids: "
                "give them to all files, or to none."
            )


def _check_ids(tables: Sequence[_Table]) -> None:
    """Record ids name files of all splits, so they are unique across files and splits."""
    prefixes = Counter(t.part.id_prefix for t in tables if t.part.record_ids is None)
    if twice := [name for name, count in prefixes.items() if count > 1]:
        raise DataError(
            f"Ids are <file>_<row>, but two files are called {twice[0]}. "
            "Rename one, or store data.record_ids_key."
        )
    hashes, counts = np.unique(
        np.concatenate([table.id_hashes for table in tables]), return_counts=True
    )
    suspects = set(hashes[counts > 1].tolist())
    if suspects and (twice := duplicates([table.part for table in tables], suspects)):
        more = ", …" if len(twice) > 5 else ""
        raise DataError(
            f"{tables[0].part.path}: {len(twice)} record ids occur twice: "
            f"{', '.join(twice[:5])}{more}.\nArtifacts are named by them: give each record its "
            "own, or leave the ids out, to have them numbered by file and row."
        )


def _digest(
    images: h5py.Dataset,
    axes: Axes,
    splits: Mapping[str, Rows],
    labels: NDArray[np.int64] | None,
    ids: h5py.Dataset | None,
) -> str:
    path = Path(images.file.filename)
    facts = (path.name, images.name, images.shape, str(images.dtype), axes)
    digest = hashlib.sha256(repr(facts).encode())
    for name, rows in splits.items():
        digest.update(name.encode("utf-8", "surrogateescape"))
        digest.update(repr(rows).encode() if isinstance(rows, range) else rows.tobytes())
    digest.update(b"" if labels is None else labels.tobytes())
    for record_id in () if ids is None else stream_ids(ids):
        digest.update(record_id.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()
