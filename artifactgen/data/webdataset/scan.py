"""What tar shards hold: which pictures of which records, where, and of which class."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from artifactgen.data.base import MAX_CLASSES
from artifactgen.data.classes import class_names
from artifactgen.data.listing import LABEL, Listing, ListingWriter, repeated_ids
from artifactgen.data.pictures import ENDINGS
from artifactgen.data.texts import TEXT, encoded
from artifactgen.data.webdataset.labels import read_label
from artifactgen.data.webdataset.tar import Archive, Member
from artifactgen.errors import DataError
from artifactgen.filetypes import describe_file
from artifactgen.types import UNKNOWN_LABEL

SHARD, OFFSET, SIZE = "shard", "offset", "size"
ABSENT = -1
"""Size of the picture of a record that has none."""
_COLUMNS = {SHARD: TEXT, OFFSET: pa.int64(), SIZE: pa.int64(), LABEL: pa.int32()}
_NAME = re.compile(r"((?:.*/|)[^./]+)\.([^/]*)", re.DOTALL)
"""Key and extension as `webdataset` tells them: the name up to the first dot."""
_META = re.compile(r"(?:^|/)__[^/]*__(?:$|/)")
"""Members that `webdataset` passes over."""
_PICTURES = frozenset(ending[1:] for ending in ENDINGS)
_READERS = 8


@dataclass(frozen=True, slots=True)
class Keys:
    """Extensions of the members that are read; None = to be found."""

    image: str | None = None
    label: str | None = None


@dataclass(slots=True)
class _Record:
    """What was found of a record so far."""

    key: str
    picture: Member | None = None
    label: str | int | None = None
    extensions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Shard:
    """The records of a shard; a million take some ten megabytes."""

    keys: str
    places_N2: NDArray[np.int64]
    """Offset and size of each picture."""
    labels: NDArray[np.int32]
    """Index into `names` where those are, else the number itself."""
    names: tuple[str, ...]
    named: str
    """A record with a name as its label; empty where there is none."""
    numbered: str
    highest: tuple[str, int] | None


@dataclass(frozen=True, slots=True)
class Shards:
    """The shards of a split."""

    root: Path
    names: Sequence[str]
    """Relative to `root`, in their order."""

    def paths(self) -> list[Path]:
        """The files."""
        return [self.root / name for name in self.names]


def scan_shards(
    splits: Mapping[str, Shards], keys: Keys, classes: tuple[str, ...] | None
) -> tuple[dict[str, Listing], tuple[str, ...], tuple[str, int] | None]:
    """List the records of all shards.

    Returns:
        The listings, names of the classes, and the record with the highest label where those are
        numbers.

    Raises:
        DataError: a shard is not as configured, or ids are not unique.
    """
    paths = [path for split in splits.values() for path in split.paths()]
    with ThreadPoolExecutor(_READERS, thread_name_prefix="shards") as pool:
        found = list(pool.map(lambda path: _scan(path, keys), paths))
    names, highest = _classes(found, classes)
    writers = {split: ListingWriter(_COLUMNS) for split in splits}
    of_names = [(split, name) for split, own in splits.items() for name in own.names]
    for (split, name), shard in zip(of_names, found, strict=True):
        _write(writers[split], name, shard, names)
    listings = {name: writer.finish() for name, writer in writers.items() if len(writer)}
    if not listings:
        raise DataError(f"There is no record in {paths[0]}{' and others' if paths[1:] else ''}.")
    if twice := repeated_ids(listings.values(), [writer.hashes for writer in writers.values()]):
        raise DataError(f"Several records have one key: {', '.join(twice)}. Keys are ids.")
    return listings, names, highest


def _write(writer: ListingWriter, name: str, shard: _Shard, names: Sequence[str]) -> None:
    if not shard.keys:
        return
    numbers = {label: index for index, label in enumerate(names)}
    own = np.array([numbers[label] for label in shard.names], np.int32)
    labels = np.where(shard.labels < 0, UNKNOWN_LABEL, own[shard.labels]) if len(own) else None
    arrays = [
        pa.array(map(encoded, shard.keys.split("\0")), TEXT),
        pa.array([encoded(name)] * len(shard.labels), TEXT),
        pa.array(shard.places_N2[:, 0]),
        pa.array(shard.places_N2[:, 1]),
        pa.array(shard.labels if labels is None else labels),
    ]
    writer.add_batch(pa.record_batch(arrays, schema=writer.schema))


def _scan(path: Path, keys: Keys) -> _Shard:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file.") from error
    try:
        _require_tar(path)
        archive = Archive(str(path), descriptor, os.fstat(descriptor).st_size)
        return _gather(list(_records(archive, keys)))
    finally:
        os.close(descriptor)


def _require_tar(path: Path) -> None:
    what = describe_file(path)
    if what is None or what == "a tar archive":
        return
    if "packed by" in what:
        name = str(path)
        raise DataError(
            f"{name} is {what}: ranges of it cannot be read. Unpack all shards, which leaves them "
            f"about as large: {'gunzip' if 'gzip' in what else 'unxz, bunzip2 or unzstd'} {name}"
        )
    raise DataError(f"{path} is {what}; data=webdataset reads tar archives.")


def _records(archive: Archive, keys: Keys) -> Iterator[_Record]:
    """The records of an archive: neighbouring members with one key."""
    record: _Record | None = None
    for member in archive.members():
        found = _NAME.fullmatch(member.name)
        if found is None or _META.search(member.name):
            continue
        key, extension = found[1], found[2].lower()
        if record is None or record.key != key:
            if record is not None:
                yield record
            record = _Record(key)
        _take(record, extension, member, archive, keys)
    if record is not None:
        yield record


def _take(record: _Record, extension: str, member: Member, archive: Archive, keys: Keys) -> None:
    if extension in record.extensions:
        raise DataError(f"{archive.path}: there are two {member.name} one after the other.")
    record.extensions += (extension,)
    is_picture = extension == keys.image if keys.image else extension in _PICTURES
    if is_picture:
        _take_picture(record, member, archive)
    elif extension == keys.label or (keys.label is None and extension in ("cls", "json")):
        if extension == "cls" or record.label is None:
            record.label = read_label(archive, member, extension)
    else:
        return
    if member.is_link:
        raise DataError(
            f"{archive.path}: {member.name} is a link. Pack it anew with tar --dereference "
            "--hard-dereference."
        )


def _take_picture(record: _Record, member: Member, archive: Archive) -> None:
    if record.picture is not None:
        ends = [name.rpartition(".")[2] for name in (record.picture.name, member.name)]
        raise DataError(
            f"{archive.path}: {record.key} has several pictures, .{' and .'.join(ends)}. "
            f"Set data.image_key={ends[0]} or {ends[1]}."
        )
    record.picture = member


def _gather(records: Sequence[_Record]) -> _Shard:
    places = [(r.picture.offset, r.picture.size) if r.picture else (0, ABSENT) for r in records]
    names = tuple(sorted({r.label for r in records if isinstance(r.label, str)}))
    numbers = {name: number for number, name in enumerate(names)}
    labels = [numbers[r.label] if isinstance(r.label, str) else _number(r.label) for r in records]
    whole = [(r.label, r.key) for r in records if isinstance(r.label, int) and r.label >= 0]
    label, key = max(whole, default=(UNKNOWN_LABEL, ""), key=lambda found: found[0])
    if label >= MAX_CLASSES:
        raise DataError(f"The label of {key} is {label}; at most {MAX_CLASSES - 1}.")
    return _Shard(
        "\0".join(r.key for r in records),
        np.array(places, np.int64).reshape(-1, 2),
        np.array(labels, np.int32),
        names,
        next((r.key for r in records if isinstance(r.label, str)), ""),
        key,
        (key, label) if key else None,
    )


def _number(label: int | None) -> int:
    return UNKNOWN_LABEL if label is None else max(min(label, MAX_CLASSES), UNKNOWN_LABEL)


def _classes(
    shards: Sequence[_Shard], given: tuple[str, ...] | None
) -> tuple[tuple[str, ...], tuple[str, int] | None]:
    named = next((shard.named for shard in shards if shard.named), None)
    numbered = next((shard.numbered for shard in shards if shard.numbered), None)
    if named and numbered:
        raise DataError(
            f"The label of {named} is a name, and that of {numbered} a number: are they of one "
            "kind?"
        )
    names = sorted({name for shard in shards for name in shard.names})
    if unknown := [name for name in names if given and name not in given]:
        raise DataError(
            f"There is a label {unknown[0]}, but data.classes are {', '.join(given or ())}."
        )
    highest = max((s.highest for s in shards if s.highest), default=None, key=lambda of: of[1])
    return class_names(given or tuple(names), highest), None if given else highest
