"""The plan: scopes of shards, for whole splits or for single records.

The data alone decides how it is cut, never the number of workers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

from artifactgen.data.base import SplitIndex
from artifactgen.errors import DataError, did_you_mean
from artifactgen.store.layout import safe_name
from artifactgen.types import Shard, Task

_SHARDS_PER_SPLIT = 64
_MAX_BATCHES_PER_SHARD = 64
_IDS_AT_ONCE = 65_536


@dataclass(frozen=True, slots=True)
class Scope:
    """What is planned, resumed and merged together: a split, or a request for single records."""

    name: str
    shards: tuple[Shard, ...]
    record_ids: tuple[str, ...] = ()
    """The only records wanted; empty = all of the shards."""

    @property
    def records(self) -> int:
        """Number of records that the scope writes."""
        return len(self.record_ids) or sum(map(len, self.shards))

    def tasks(self, done: Container[Shard]) -> list[Task]:
        """What is left to do, in the data set's order."""
        wanted = frozenset(self.record_ids)
        return [Task(self.name, shard, wanted) for shard in self.shards if shard not in done]


def batches_per_shard(records: int, batch_size: int) -> int:
    """Enough shards to keep many workers busy, but no shard of more than 64 batches."""
    per_shard = -(-records // (_SHARDS_PER_SPLIT * batch_size))
    return min(max(per_shard, 1), _MAX_BATCHES_PER_SHARD)


def cut(split: str, records: int, *, batch_size: int) -> tuple[Shard, ...]:
    """Cut a split into shards of whole batches.

    A batch never crosses a shard, so that every record always meets the same batch, and thereby
    the same rounding, whatever ran before or beside it.
    """
    size = batch_size * batches_per_shard(records, batch_size)
    return tuple(
        Shard(split, index, start, min(start + size, records))
        for index, start in enumerate(range(0, records, size))
    )


def batches_around(shards: Iterable[Shard], rows: Sequence[int], *, batch_size: int) -> list[Shard]:
    """The batches that hold `rows`, each as a shard of its own.

    A single record is computed in the company of its own batch, so that it comes out equal to
    the bit to the same record of a whole run.
    """
    starts = sorted({row - row % batch_size for row in rows})
    return [
        Shard(shard.split, start // batch_size, start, min(start + batch_size, shard.stop))
        for shard in shards
        for start in starts
        if shard.start <= start < shard.stop
    ]


def plan_splits(
    splits: Mapping[str, SplitIndex], *, batch_size: int, limit: int | None
) -> list[Scope]:
    """A scope for each split, cut into shards; `limit` takes the first records of each."""
    return [
        Scope(name, cut(name, _length(index, limit), batch_size=batch_size))
        for name, index in splits.items()
    ]


def _length(index: SplitIndex, limit: int | None) -> int:
    return len(index) if limit is None else min(len(index), limit)


def plan_records(
    scopes: Sequence[Scope],
    splits: Mapping[str, SplitIndex],
    record_ids: Sequence[str],
    *,
    batch_size: int,
) -> Scope:
    """One scope for single records, each in the company of its own batch.

    Args:
        scopes: the plan of the whole splits.
        splits: where to look for the records.
        record_ids: the records that are wanted.
        batch_size: records of a batch.

    Raises:
        DataError: a record that is in none of the splits.
    """
    rows = {
        scope.name: find_rows(splits[scope.name], record_ids, scope.records) for scope in scopes
    }
    found = {record_id for by_id in rows.values() for record_id in by_id}
    missing = [record_id for record_id in record_ids if record_id not in found]
    if missing:
        some = [i for s in scopes for i in splits[s.name].record_ids(0, min(s.records, 10_000))]
        raise DataError(
            f"record_id={missing[0]}: there is no such record in {', '.join(rows)}. "
            f"{did_you_mean(missing[0], some)}"
        )
    shards = [
        shard
        for scope in scopes
        for shard in batches_around(
            scope.shards, list(rows[scope.name].values()), batch_size=batch_size
        )
    ]
    return Scope(_scope_name(record_ids), tuple(shards), tuple(record_ids))


def find_rows(index: SplitIndex, record_ids: Sequence[str], length: int) -> dict[str, int]:
    """Rows of the wanted records among the first `length`, by id, with flat memory."""
    wanted = set(record_ids)
    return {
        record_id: row
        for start in range(0, length, _IDS_AT_ONCE)
        for row, record_id in enumerate(
            index.record_ids(start, min(start + _IDS_AT_ONCE, length)), start
        )
        if record_id in wanted
    }


def _scope_name(record_ids: Sequence[str]) -> str:
    if len(record_ids) == 1:
        return f"record={safe_name(record_ids[0])}"
    digest = hashlib.sha256("\0".join(record_ids).encode("utf-8", "surrogatepass")).hexdigest()
    return f"records={digest[:16]}"
