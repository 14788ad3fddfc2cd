"""Listings: rows by ranges from any process, ids that are unique, and memory that stays small."""

from __future__ import annotations

import pickle
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from artifactgen.data.listing import (
    BLOCK_ROWS,
    TEXT,
    Listing,
    ListingWriter,
    digest_of,
    repeated_ids,
)
from artifactgen.data.sampling import evenly
from artifactgen.errors import DataError

ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=20)


def listing_of(ids, labels=None) -> tuple[Listing, ListingWriter]:
    writer = ListingWriter({"path": TEXT, "label": pa.int32()})
    for row, record_id in enumerate(ids):
        writer.add(record_id, f"{record_id}.png", labels[row] if labels else row % 7)
    return writer.finish(), writer


@pytest.mark.parametrize("rows", [0, 1, BLOCK_ROWS - 1, BLOCK_ROWS, 2 * BLOCK_ROWS + 3])
def test_what_was_added_is_read_by_ranges(rows, tmp_path):
    ids = [f"r{row}" for row in range(rows)]
    listing, _ = listing_of(ids)
    path = tmp_path / "a.arrow"
    path.write_bytes(listing.content)
    for index in (listing, listing.kept_at(path)):
        assert len(index) == rows
        assert index.record_ids(0, rows) == ids
        for start in {0, rows // 2, max(BLOCK_ROWS - 2, 0), max(rows - 3, 0)}:
            found = index.read(start, start + 5)
            assert [row["record_id"] for row in found] == ids[start : start + 5]
            assert [row["label"] for row in found] == [i % 7 for i in range(rows)][
                start : start + 5
            ]
            assert all(row["path"] == f"{row['record_id']}.png" for row in found)


@given(st.lists(ANY_TEXT, max_size=30))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_any_text_comes_back(ids):
    listing, _ = listing_of(ids)
    assert listing.record_ids(0, len(ids)) == ids
    assert [row["path"] for row in listing.read(0, len(ids))] == [f"{name}.png" for name in ids]


def _read(listing: Listing) -> list[str]:
    return listing.record_ids(BLOCK_ROWS - 1, BLOCK_ROWS + 1)


def test_a_kept_one_travels_as_a_path(tmp_path):
    listing, _ = listing_of([f"r{row}" for row in range(BLOCK_ROWS + 9)])
    path = tmp_path / "a.arrow"
    path.write_bytes(listing.content)
    kept = listing.kept_at(path)
    assert len(pickle.dumps(kept)) < 1000 < len(listing.content)
    with ThreadPoolExecutor(2) as threads, ProcessPoolExecutor(1) as processes:
        for pool in (threads, processes):
            assert list(pool.map(_read, [kept, listing])) == [_read(listing)] * 2


def test_a_listing_that_takes_the_place_of_another_is_read_anew(tmp_path):
    for ids in (["a", "b"], ["c", "d"]):
        listing, _ = listing_of(ids)
        new = tmp_path / "new"
        new.write_bytes(listing.content)
        kept = listing.kept_at(new.replace(tmp_path / "a.arrow"))
        assert kept.record_ids(0, 2) == ids


def test_the_same_records_have_the_same_digest(tmp_path):
    ids = [f"r{row}" for row in range(BLOCK_ROWS + 9)]
    listing, _ = listing_of(ids)
    again, _ = listing_of(ids)
    path = tmp_path / "a.arrow"
    path.write_bytes(listing.content)
    digest = digest_of({"train": listing})
    assert digest_of({"train": again}) == digest_of({"train": listing.kept_at(path)}) == digest
    others = [
        {"test": listing},
        {"train": listing_of(ids[:-1])[0]},
        {"train": listing_of([*ids[:-1], "other"])[0]},
        {"train": listing_of(ids, labels=[row % 6 for row in range(len(ids))])[0]},
        {"train": listing, "val": listing_of(["x"])[0]},
    ]
    assert len({digest, *map(digest_of, others)}) == len(others) + 1
    moved = {"train": listing_of(ids, labels=[3] * len(ids))[0]}
    of_ids = digest_of(moved, columns=["record_id"])
    assert of_ids == digest_of({"train": listing}, columns=["record_id"])
    assert of_ids not in (digest_of(moved, columns=["label"]), digest_of(moved))
    assert digest_of(moved, ("a", "b")) not in (digest_of(moved), digest_of(moved, ("b", "a")))


def test_ids_that_occur_twice_are_named():
    first, of_first = listing_of([f"r{row}" for row in range(BLOCK_ROWS + 5)])
    second, of_second = listing_of(["a", "é", f"r{BLOCK_ROWS + 1}", "A"])
    third, of_third = listing_of(["é", "b"])
    every = [first, second, third]
    hashes = [writer.hashes for writer in (of_first, of_second, of_third)]
    assert repeated_ids(every, hashes) == [f"r{BLOCK_ROWS + 1}", "é"]
    assert repeated_ids(every, hashes, most=1) == [f"r{BLOCK_ROWS + 1}"]
    assert repeated_ids([first, third], [of_first.hashes, of_third.hashes]) == []
    assert repeated_ids([listing_of([])[0]], [listing_of([])[1].hashes]) == []


def test_an_id_that_is_too_long_is_refused():
    with pytest.raises(DataError, match=r"The id x{40}… has 5,000 characters; at most 1,024\."):
        listing_of(["x" * 5000])


@pytest.mark.parametrize("most", [1, 3, 10, 100])
def test_some_rows_lie_evenly_over_all(most):
    listings = {"a": listing_of([f"a{i}" for i in range(30)])[0], "b": listing_of(["b"])[0]}
    found = [row["record_id"] for row in evenly(listings, most)]
    assert len(found) == min(most, 31)
    assert len(set(found)) == len(found)
    everything = [*(f"a{i}" for i in range(30)), "b"]
    assert [everything.index(name) for name in found] == [
        (2 * i + 1) * 31 // (2 * len(found)) for i in range(len(found))
    ]


def test_memory_is_that_of_what_is_compressed():
    writer = ListingWriter({"path": TEXT, "label": pa.int32()})
    for row in range(200_000):
        writer.add(f"patient_{row:09d}", f"folder/{row // 1000:05d}/patient_{row:09d}.png", 1)
    listing = writer.finish()
    assert len(listing.content) < 200_000 * 12
    assert sys.getsizeof(writer.hashes) < 200_000 * 9
