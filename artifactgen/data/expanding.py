"""Listings of volumes as listings of their slices."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from artifactgen.data.base import is_of_the_file
from artifactgen.data.listing import Listing, ListingWriter, repeated_ids
from artifactgen.errors import DataError, RecordError

SLICE = "slice"
"""Column of listings: index of the slice; null where a record is not one."""
_READERS = 16
_DIGITS = 3
Row = dict[str, Any]


def expand_listings(
    listings: Mapping[str, Listing], count: Callable[[Row], int | None]
) -> dict[str, Listing]:
    """Put a record for each slice in the place of each volume.

    What is no volume, or is broken, stays one record with its own id: it fails where it is read.

    Args:
        listings: of all splits.
        count: a row to its number of slices; None where it is no volume.

    Raises:
        DataError: ids that are not unique.
    """
    writers = {split: _expanded(listing, count) for split, listing in listings.items()}
    hashes = [writer.hashes for writer in writers.values()]
    expanded = {split: writer.finish() for split, writer in writers.items()}
    if repeated := repeated_ids(expanded.values(), hashes):
        raise DataError(
            f"Slices would have the ids of other records: {', '.join(repeated)}. Rename those."
        )
    return expanded


def _expanded(listing: Listing, count: Callable[[Row], int | None]) -> ListingWriter:
    writer = ListingWriter({**listing.columns(), SLICE: pa.int32()})
    for row, slices in _counted(listing, count):
        record_id, *values = row.values()
        if slices is None:
            writer.add(record_id, *values, None)
            continue
        digits = max(_DIGITS, len(str(slices - 1)))
        for index in range(slices):
            writer.add(f"{record_id}_{index:0{digits}d}", *values, index)
    return writer


def _counted(
    listing: Listing, count: Callable[[Row], int | None]
) -> Iterator[tuple[Row, int | None]]:
    def counted(row: Row) -> int | None:
        try:
            return count(row)
        except RecordError:
            return None
        except OSError as error:
            if is_of_the_file(error):
                return None
            raise

    with ThreadPoolExecutor(_READERS, thread_name_prefix="slices") as pool:
        for rows in listing.rows_by_block():
            yield from zip(rows, pool.map(counted, rows), strict=True)
