"""What a shard gathers while it is done, and how it becomes files."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifactgen.artifacts.base import BoundArtifact
from artifactgen.job import Job
from artifactgen.labels import Labels
from artifactgen.store.ledger import committed_file
from artifactgen.store.shardfile import (
    RecordPictures,
    ShardRows,
    paths_of,
    write_maps,
    write_shard,
)
from artifactgen.types import CommittedFile, Failure, Receipt, Sample, Task

_ALWAYS = ("predictions",)


def kept_arrays(artifacts: Mapping[str, BoundArtifact], *, save_maps: bool) -> frozenset[str]:
    """Names of the arrays that go into the files of a shard."""
    columns = [name for artifact in artifacts.values() for name in artifact.columns]
    maps = [name for artifact in artifacts.values() for name in artifact.maps]
    return frozenset([*_ALWAYS, *columns, *(maps if save_maps else ())])


@dataclass(slots=True)
class GatheredShard:
    """The records of a shard, in the data set's order."""

    labelling: Labels
    """What the labels of samples are in the results."""
    kept: frozenset[str]
    """The arrays that go into files; the others have served once the pictures are drawn."""
    record_ids: list[str] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    batches: list[Mapping[str, NDArray[Any]]] = field(default_factory=list)
    pictures: list[RecordPictures] = field(default_factory=list)
    """Of each record."""
    failures: list[Failure] = field(default_factory=list)
    halved_batches: int = 0
    empty_maps: Counter[str] = field(default_factory=Counter)

    def count_empty(
        self, artifacts: Mapping[str, BoundArtifact], arrays: Mapping[str, NDArray[Any]]
    ) -> None:
        """Count the empty maps of a batch, by kind and by what they are of."""
        for name, artifact in artifacts.items():
            counts = artifact.count_empty(arrays)
            self.empty_maps.update({f"{name}: {what}": n for what, n in counts.items() if n})

    def add(
        self,
        samples: Sequence[Sample],
        arrays: Mapping[str, NDArray[Any]],
        pictures: Sequence[RecordPictures],
    ) -> None:
        """Add a batch; `arrays` have one row for each sample."""
        self.pictures += pictures
        self.record_ids += [sample.record_id for sample in samples]
        self.positions += [sample.row for sample in samples]
        self.labels += [self.labelling.of(sample.label) for sample in samples]
        if samples:
            self.batches.append({k: v for k, v in arrays.items() if k in self.kept})

    def write(
        self, job: Job, artifacts: Mapping[str, BoundArtifact], task: Task
    ) -> tuple[CommittedFile, ...]:
        """Write the shard's file for the reducer, and its maps where they are kept."""
        temp_dir = job.layout.temp
        paths = [job.layout.scope(task.scope).shard(task.shard)]
        write_shard(paths[0], self._rows(artifacts), temp_dir=temp_dir)
        maps = [name for artifact in artifacts.values() for name in artifact.maps]
        if job.save_maps and maps:
            paths.append(job.layout.maps(task.scope, task.shard))
            columns = {"rows": _int64(self.positions), **self._columns(*maps)}
            attributes = _attributes(artifacts)
            write_maps(
                paths[-1], self.record_ids, columns, attributes=attributes, temp_dir=temp_dir
            )
        return tuple(committed_file(job.output_dir, path) for path in paths)

    def receipt(
        self,
        task: Task,
        *,
        device: str,
        files: tuple[CommittedFile, ...],
        seconds: Mapping[str, float],
    ) -> Receipt:
        """What to report of the shard once its files are written."""
        wanted = task.record_ids
        pictures = [picture for record in self.pictures for _, picture in paths_of(record)]
        failures = (f for f in self.failures if not wanted or f.record_id in wanted)
        return Receipt(
            task.shard,
            records=len(self.record_ids),
            host=socket.gethostname(),
            device=device,
            failures=tuple(sorted(failures, key=lambda failure: failure.row)),
            files=files,
            pictures=len(pictures),
            picture_bytes=sum(picture.size_bytes for picture in pictures),
            halved_batches=self.halved_batches,
            empty_maps=dict(self.empty_maps),
            seconds=dict(seconds),
        )

    def _rows(self, artifacts: Mapping[str, BoundArtifact]) -> ShardRows:
        kept = [name for artifact in artifacts.values() for name in artifact.columns]
        index = {"rows": _int64(self.positions), "labels": _int64(self.labels)}
        return ShardRows(
            record_ids=self.record_ids,
            pictures=self.pictures,
            columns={**index, **self._columns(*kept, *_ALWAYS)},
        )

    def _columns(self, *names: str) -> dict[str, NDArray[Any]]:
        """The arrays of all batches under one another; none for a shard without a good record."""
        present = [name for name in names if self.batches and name in self.batches[0]]
        return {name: np.concatenate([batch[name] for batch in self.batches]) for name in present}


def _int64(values: Sequence[int]) -> NDArray[np.int64]:
    return np.array(values, dtype=np.int64)


def _attributes(artifacts: Mapping[str, BoundArtifact]) -> dict[str, Any]:
    """What the maps are of, such as `gradcam.layer` and `attention.method`."""
    return {
        f"{kind}.{key}": value
        for kind, artifact in artifacts.items()
        for key, value in artifact.resolved().items()
    }
