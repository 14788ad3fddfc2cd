"""Folders of a data set that are splits and classes: `<root>/<split>/<class>/…`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa

from artifactgen.data.listing import LABEL, Listing, ListingWriter, repeated_ids
from artifactgen.data.splits import SPLITS
from artifactgen.data.texts import TEXT
from artifactgen.data.walking import folders_in
from artifactgen.errors import DataError, did_you_mean
from artifactgen.types import UNKNOWN_LABEL

PATH = "path"
"""Column of the listings: where a record lies below the root."""


@dataclass(frozen=True, slots=True)
class Split:
    """A folder that is a split."""

    name: str
    folder: Path
    prefix: str
    """Of paths relative to the root: `train/`, or nothing."""


Found = tuple[Any, ...]
"""(id below the split, path below the split, values of further columns)."""


def split_folders(root: Path) -> list[Split]:
    """The folders in `root` that are splits, sorted by name; else `root` itself, as `test`.

    Raises:
        DataError: no such folder, or two that are one split.
    """
    if not root.is_dir():
        raise DataError(f"data.root={root}: no such folder.")
    names = folders_in(root)
    if not any(name.lower() in SPLITS for name in names):
        return [Split("test", root, "")]
    splits = [Split(SPLITS.get(n.lower(), n), root / n, f"{n}/") for n in names]
    counts = Counter(split.name for split in splits)
    if twice := [name for name in counts if counts[name] > 1]:
        both = " and ".join(split.prefix for split in splits if split.name == twice[0])
        raise DataError(f"data.root={root}: {both} are both the split {twice[0]}. Remove one.")
    return sorted(splits, key=lambda split: split.name)


def class_folders(splits: Sequence[Split], given: tuple[str, ...] | None) -> tuple[str, ...]:
    """Names of the classes by label: the folders in the splits, sorted, or as `given`.

    Raises:
        DataError: a folder that is none of those given.
    """
    found = sorted({name for split in splits for name in folders_in(split.folder)})
    unknown = [name for name in found if given is not None and name not in given]
    if unknown:
        raise DataError(
            f"{unknown[0]}: a folder of a class that data.classes does not name. "
            f"{did_you_mean(unknown[0], given or ())}"
        )
    return tuple(found) if given is None else given


def label_folders(
    splits: Sequence[Split],
    given: tuple[str, ...] | None,
    find: Callable[[Split], Iterable[Found]],
    *,
    asked: bool | None,
) -> tuple[str, ...]:
    """Names of the classes by label, where folders may be patients as well as classes.

    Args:
        splits: where to look.
        given: names of the classes by label; None = sorted.
        find: what there is in a split.
        asked: whether folders are classes; None = unless each holds only one record.

    Raises:
        DataError: a folder that is none of those given.
    """
    if asked is None and given is None:
        found = Counter(_folder(path) for split in splits for _, path, *_ in find(split))
        asked = any(count > 1 for folder, count in found.items() if folder)
    return class_folders(splits, given) if asked or given is not None else ()


def list_splits(
    splits: Sequence[Split],
    classes: Sequence[str],
    find: Callable[[Split], Iterable[Found]],
    *,
    what: str,
    columns: Mapping[str, pa.DataType] | None = None,
) -> dict[str, Listing]:
    """List every split; ids get the split's name where they would occur twice without it.

    Args:
        splits: where to look.
        classes: names of the folders that are classes, by label.
        find: what there is in a split; called again where ids are not unique.
        what: is looked for, in messages: `picture (.png, .jpg)`.
        columns: names and types of the further values that it gives.

    Raises:
        DataError: nothing is found, or ids are not unique within a split.
    """
    for with_split in (False, True):
        writers = {
            split.name: _written(split, classes, find, _types(columns), with_split=with_split)
            for split in splits
        }
        listings = {name: writer.finish() for name, writer in writers.items() if len(writer)}
        if not listings:
            folders = ", ".join(str(split.folder) for split in splits)
            raise DataError(f"There is no {what} below {folders}.")
        hashes = [writer.hashes for writer in writers.values()]
        repeated = repeated_ids(listings.values(), hashes)
        if not repeated:
            return listings
    raise DataError(f"Several records would have one id: {', '.join(repeated)}. Rename them.")


def _written(
    split: Split,
    classes: Sequence[str],
    find: Callable[[Split], Iterable[Found]],
    columns: Mapping[str, pa.DataType],
    *,
    with_split: bool,
) -> ListingWriter:
    writer = ListingWriter(columns)
    labels = {name: index for index, name in enumerate(classes)}
    before = f"{split.name}/" if with_split else ""
    for name, path, *values in find(split):
        label = labels.get(_folder(path), UNKNOWN_LABEL)
        writer.add(before + name, split.prefix + path, label, *values)
    return writer


def _types(columns: Mapping[str, pa.DataType] | None) -> dict[str, pa.DataType]:
    return {PATH: TEXT, LABEL: pa.int32(), **(columns or {})}


def _folder(path: str) -> str:
    """The first folder of a path; nothing where it is a file alone."""
    first, _, below = path.partition("/")
    return first if below else ""


def with_ids(
    paths: Iterable[str], *, endings: Sequence[str] | None = None
) -> Iterator[tuple[str, str]]:
    """Each path behind its id: without the ending, unless a neighbour differs by that alone.

    Args:
        paths: in the order of their folders.
        endings: in lower case, that are left out of ids; None = whatever follows the last dot.
    """
    for _, group in groupby(paths, key=lambda path: path.rpartition("/")[0]):
        found = list(group)
        stems = Counter(_stem(path, endings) for path in found)
        for path in found:
            stem = _stem(path, endings)
            yield path if stems[stem] > 1 else stem, path


def _stem(path: str, endings: Sequence[str] | None) -> str:
    folder, slash, name = path.rpartition("/")
    if endings is None:
        return folder + slash + (name.rpartition(".")[0] or name)
    found = next((ending for ending in endings if name.lower().endswith(ending)), "")
    return path[: len(path) - len(found)] if len(name) > len(found) else path
