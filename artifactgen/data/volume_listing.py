"""Listings of files that may be volumes, as data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from artifactgen.data.base import Catalog, decode_each
from artifactgen.data.content import MOST_SAMPLED, files_digest
from artifactgen.data.expanding import SLICE, expand_listings
from artifactgen.data.listing import LABEL, Listing, digest_of, listed_rows
from artifactgen.data.sampling import evenly
from artifactgen.data.volumes import Found, Volumes
from artifactgen.types import Failure, Sample

FRAMES = "frames"
"""Column of listings: number of frames of a DICOM series."""
Row = dict[str, Any]
Paths = Callable[[Row], Sequence[Path]]
"""A row of a listing to the files of its record."""


def catalog_of(
    source: Volumes, listings: Mapping[str, Listing], classes: tuple[str, ...], paths: Paths
) -> Catalog:
    """What was listed, as a scan gives it; a few of the files are read.

    Raises:
        DataError: none of the first files can be read, or ids are not unique.
    """
    if source.expand is not None:
        listings = expand_listings(listings, lambda row: source.count_slices(found_of(row, paths)))
    found = [paths(row) for row in evenly(listings, MOST_SAMPLED)]
    channels, dtype = source.kind_of_first(files[0] for files in found)
    some = list(dict.fromkeys(path for files in found for path in files))
    return Catalog(
        splits=listings,
        classes=classes,
        channels=channels,
        identity=digest_of(listings, classes),
        content=files_digest(some[:: -(-len(some) // MOST_SAMPLED)]),
        dtype=dtype,
        frame_names=source.frame_names if channels == len(source.frame_names) else (),
    )


def read_listed(
    source: Volumes,
    catalog: Catalog,
    split: str,
    start: int,
    stop: int,
    *,
    paths: Paths,
    place: Path,
) -> Iterator[Sample | Failure]:
    """Decode rows `start` to `stop` of a split, each a `Sample` or a `Failure`.

    Args:
        source: whose options say what of a volume is the picture.
        catalog: from `catalog_of`.
        split: to be read.
        start: first row.
        stop: behind the last row.
        paths: a row to the files of its record.
        place: see `decode_each`.
    """
    rows = listed_rows(catalog, split, start, stop)
    decode = partial(_decode, source, catalog, paths)
    return decode_each(rows, decode, split=split, start=start, place=place)


def listed_files(
    catalog: Catalog, split: str, start: int, stop: int, *, paths: Paths
) -> Iterator[str]:
    """Paths of the files that rows `start` to `stop` of a split lie in."""
    rows = listed_rows(catalog, split, start, stop)
    return (str(path) for _, row in rows for path in paths(row))


def found_of(row: Row, paths: Paths) -> Found:
    """Where the record of a row lies."""
    return Found(tuple(paths(row)), row.get(SLICE), row.get(FRAMES))


def _decode(
    source: Volumes, catalog: Catalog, paths: Paths, row: int, record_id: str, found: Row
) -> Sample:
    where = found_of(found, paths)
    return source.sample_of(where, record_id, row, catalog=catalog, label=found[LABEL])
