from __future__ import annotations

import random

import pytest

from artifactgen.plan import Scope, batches_around, cut
from artifactgen.types import Shard

SIZES = [0, 1, 31, 32, 33, 64 * 32, 64 * 32 + 1, 100_003, 4_000_000]


def batches(shards: tuple[Shard, ...], batch_size: int) -> list[tuple[int, int]]:
    """The batches that a worker makes of shards."""
    return [
        (start, min(start + batch_size, shard.stop))
        for shard in shards
        for start in range(shard.start, shard.stop, batch_size)
    ]


@pytest.mark.parametrize("batch_size", [1, 7, 32])
@pytest.mark.parametrize("records", SIZES)
def test_shards_cover_every_record_once_in_order(records: int, batch_size: int) -> None:
    shards = cut("train", records, batch_size=batch_size)
    assert [shard.index for shard in shards] == list(range(len(shards)))
    edges = [0, *(shard.stop for shard in shards)]
    assert [shard.start for shard in shards] == edges[:-1]
    assert edges[-1] == records
    assert all(len(shard) > 0 for shard in shards)
    assert [shard.name for shard in shards] == sorted(shard.name for shard in shards)


@pytest.mark.parametrize("batch_size", [1, 7, 32])
@pytest.mark.parametrize("records", SIZES[:-1])
def test_batches_are_those_of_one_long_run(records: int, batch_size: int) -> None:
    whole = [(i, min(i + batch_size, records)) for i in range(0, records, batch_size)]
    assert batches(cut("train", records, batch_size=batch_size), batch_size) == whole


@pytest.mark.parametrize("records", SIZES)
def test_there_is_work_for_many_and_no_shard_is_long(records: int) -> None:
    shards = cut("train", records, batch_size=32)
    assert max(map(len, shards), default=0) <= 64 * 32
    if records >= 64 * 32:
        assert len(shards) > 32


def test_the_first_shards_stay_where_a_split_is_cut_short() -> None:
    assert cut("a", 64, batch_size=32) == cut("a", 65, batch_size=32)[:2]


def test_single_records_are_computed_in_the_batches_of_the_whole_run() -> None:
    rng = random.Random(1)
    for records, batch_size in [(1, 4), (9, 4), (1000, 7), (5000, 16)]:
        shards = cut("val", records, batch_size=batch_size)
        whole = batches(shards, batch_size)
        for _ in range(20):
            rows = rng.sample(range(records), k=min(records, rng.randint(1, 4)))
            around = batches_around(shards, rows, batch_size=batch_size)
            found = [(shard.start, shard.stop) for shard in around]
            assert found == [(a, b) for a, b in whole if any(a <= row < b for row in rows)]
            assert {shard.split for shard in around} == {"val"}
            assert len({shard.name for shard in around}) == len(around)


def test_no_row_needs_no_batch() -> None:
    assert batches_around(cut("val", 10, batch_size=4), [], batch_size=4) == []


def test_a_scope_hands_out_what_is_not_done() -> None:
    shards = cut("train", 10, batch_size=4)
    scope = Scope("train", shards)
    assert scope.records == 10
    assert [task.shard for task in scope.tasks({shards[1]})] == [shards[0], shards[2]]
    single = Scope("record=a", shards[:1], ("a",))
    assert single.records == 1
    (task,) = single.tasks({})
    assert (task.scope, task.record_ids) == ("record=a", frozenset({"a"}))
