"""What a data source answers, checked: everything that is read of a data set passes here.

A source may be anybody's. Whatever it does wrong is told as its own mistake, and never becomes a
record that is missing without a word.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifactgen.data.base import MAX_CLASSES, MAX_ID_LENGTH, Catalog, Source, is_of_the_file
from artifactgen.errors import (
    DataError,
    RecordError,
    RunError,
    UsageError,
    forbid_exit,
    where_raised,
)
from artifactgen.patience import patiently
from artifactgen.types import UNKNOWN_LABEL, Failure, Sample

_DTYPES = (np.uint8, np.uint16, np.float32)
_SHOWN = 60


def scan_source(source: Source) -> Catalog:
    """Scan a data set; what may pass, such as a file server that does not answer, is tried again.

    Raises:
        DataError: it is not as configured, or the source is at fault.
        RunError: it failed as often as it is tried.
    """
    return patiently(partial(_scan, source), what="The data set")


def _scan(source: Source) -> Catalog:
    name = type(source).__name__
    with _explained(source, "scanning the data set"):
        try:
            catalog: Any = source.scan()
        except OSError as error:
            if is_of_the_file(error):
                raise DataError(f"{name} cannot scan the data set: {error}") from error
            raise
    if not isinstance(catalog, Catalog):
        raise DataError(f"{name}.scan gave {_shown(catalog)}, which is no Catalog.")
    if len(catalog.classes) > MAX_CLASSES:
        raise DataError(f"{name} names {len(catalog.classes):,} classes; at most {MAX_CLASSES:,}.")
    return catalog


def read_range(
    source: Source, catalog: Catalog, split: str, start: int, stop: int
) -> list[Sample | Failure]:
    """Rows `start` to `stop` of a split: one `Sample` or `Failure` for each, in order.

    Raises:
        DataError: the source gives anything else, or raises an error of its own; the message names
            its class, the split and the rows.
        OSError, MemoryError: of a kind that may pass, such as a file server that does not answer.
    """
    rows = f"row {start}" if stop - start == 1 else f"rows {start} to {stop - 1}"
    with _explained(source, f"reading {rows} of {split}"):
        items: list[Any] = list(islice(source.read(catalog, split, start, stop), stop - start + 1))
        ids = list(catalog.splits[split].record_ids(start, stop))
    problems = (
        f"row {row}: {found}"
        for row, (item, record_id) in enumerate(zip(items, ids, strict=False), start)
        if (found := _item_problem(item, row, record_id, split, source, catalog))
    )
    # A record that is left out shows by the ids of those after it: the first of them says most.
    if problem := next(problems, None) or _count_problem(len(items), len(ids), stop - start):
        raise DataError(
            f"{type(source).__name__} was to read {rows} of {split}: {problem}.\n"
            "A source gives one Sample or Failure for each row, in order; see docs/extending.md."
        )
    return [_plain(item) for item in items]


def read_record(source: Source, catalog: Catalog, split: str, row: int) -> Sample | Failure:
    """A single record, outside of the shards; what may pass is tried again.

    Raises:
        DataError: see `read_range`.
        RunError: it failed as often as it is tried.
    """
    read = partial(read_range, source, catalog, split, row, row + 1)
    (item,) = patiently(read, what="The data set")
    return item


def stack(samples: Sequence[Sample]) -> NDArray[Any]:
    """The images of a batch, (B, C, H, W).

    Raises:
        DataError: they are of several types, which NumPy would convert without a word.
    """
    first = samples[0]
    for sample in samples:
        if sample.image_CHW.dtype != first.image_CHW.dtype:
            raise DataError(
                f"{first.record_id} is {first.image_CHW.dtype} and {sample.record_id} is "
                f"{sample.image_CHW.dtype}: all images of a data set have one type, by which "
                "their pixels are scaled."
            )
    return np.stack([sample.image_CHW for sample in samples])


@contextmanager
def _explained(source: Source, doing: str) -> Iterator[None]:
    """Tell whose mistake an error is that a source raises, but for what may pass."""
    name = type(source).__name__
    try:
        with forbid_exit(name, doing, DataError):
            yield
    except (UsageError, RunError, MemoryError):
        raise
    except OSError as error:
        if error.errno is None:  # of a library, and about what it read
            raise _own_error(source, doing, error) from error
        text = f"{error.strerror} ({name}, {doing})"
        raise OSError(error.errno, text, error.filename) from error
    except RecordError as error:  # outside of the decoding of any record
        raise DataError(f"{name}, {doing}: {error}") from error
    # A source is anybody's, and raises what it likes.
    except Exception as error:
        raise _own_error(source, doing, error) from error


def _own_error(source: Source, doing: str, error: Exception) -> DataError:
    module = getattr(sys.modules[type(source).__module__], "__file__", None)
    return DataError(
        f"{type(source).__name__} raised {type(error).__name__} while {doing} "
        f"({where_raised(error, module=module)}): {error}"
    )


def _count_problem(items: int, ids: int, due: int) -> str | None:
    if ids != due:
        return f"the catalog has {ids} ids for {due} rows"
    if items > due:
        return f"it gave more than {due}"
    return f"it gave {items} of {due}" if items < due else None


def _item_problem(
    item: Any, row: int, record_id: str, split: str, source: Source, catalog: Catalog
) -> str | None:
    """What is wrong with what a source gave for a row."""
    if not isinstance(item, (Sample, Failure)):
        return f"{_shown(item)} is no Sample and no Failure"
    if not isinstance(item.row, Integral) or item.row != row:
        return f"the {type(item).__name__} says that it is row {_shown(item.row)}"
    if problem := id_problem(item.record_id):
        return problem
    if item.record_id != record_id:
        return f"its id is {_shown(item.record_id)}, and {_shown(record_id)} in the catalog"
    if isinstance(item, Failure):
        return _failure_problem(item, split)
    return (
        _label_problem(item.label, catalog)
        or _image_problem(item.image_CHW, source.image_size, catalog)
        or _dtype_problem(item, catalog)
    )


def _plain(item: Sample | Failure) -> Sample | Failure:
    """Numbers of NumPy as numbers of Python, which the ledger is written with."""
    if type(item.row) is not int:
        item = replace(item, row=int(item.row))
    if isinstance(item, Sample) and type(item.label) is not int:
        item = replace(item, label=int(item.label))
    return item


def id_problem(record_id: Any) -> str | None:
    """What is wrong with a record id."""
    if not isinstance(record_id, str):
        return f"its id {_shown(record_id)} is no text"
    if len(record_id) > MAX_ID_LENGTH:
        return (
            f"its id {_shown(record_id)} has {len(record_id):,} characters; "
            f"at most {MAX_ID_LENGTH:,} are kept"
        )
    return None


def _failure_problem(failure: Failure, split: str) -> str | None:
    if failure.split != split:
        return f"the Failure says that it is of the split {_shown(failure.split)}"
    for name in ("stage", "reason"):
        if not isinstance(value := getattr(failure, name), str):
            return f"the {name} of the Failure, {_shown(value)}, is no text"
    return None


def _label_problem(label: Any, catalog: Catalog) -> str | None:
    known = len(catalog.classes)
    if not isinstance(label, Integral):
        return f"its label {_shown(label)} is no whole number"
    if UNKNOWN_LABEL <= int(label) < known:
        return None
    if not known:
        return f"its label is {label}, but the catalog names no classes"
    return f"its label is {label}, but there are {known} classes (0 to {known - 1}; -1 = unknown)"


def _image_problem(image: Any, size: tuple[int, int] | None, catalog: Catalog) -> str | None:
    if not isinstance(image, np.ndarray):
        return f"its image {_shown(image)} is no NumPy array"
    if image.dtype not in _DTYPES:
        return f"its image is of {image.dtype}; give uint8, uint16 or float32"
    expected = (catalog.channels, *(size or image.shape[1:]))
    if image.ndim != 3 or image.shape != expected:
        return (
            f"its image has the shape {image.shape}; (C, H, W) is "
            f"({catalog.channels}, {', '.join(map(str, size)) if size else 'H, W'})"
        )
    return None


def _dtype_problem(sample: Sample, catalog: Catalog) -> str | None:
    """All images of a run have the type of the first: it says how their pixels are scaled."""
    dtype = str(sample.image_CHW.dtype)
    if catalog.dtype in (None, dtype):
        return None
    return f"the image of {_shown(sample.record_id)} is {dtype}, and the first ones {catalog.dtype}"


def _shown(value: Any) -> str:
    """A value in a message, however long it is."""
    if isinstance(value, (str, bytes)):
        return repr(value[:_SHOWN]) + ("…" if len(value) > _SHOWN else "")
    text = repr(value) if isinstance(value, (int, float, np.generic, type(None))) else ""
    return text[:_SHOWN] or f"of type {type(value).__name__}"
