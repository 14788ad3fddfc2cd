"""Cutting a data set into shards. The data alone decides, never the number of workers."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from artifactgen.types import Shard, Task

_SHARDS_PER_SPLIT = 64
_MAX_BATCHES_PER_SHARD = 64


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
