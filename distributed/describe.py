"""What the program says of a run, in lines for a person."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

from artifactgen.device import resolve_device
from artifactgen.job import Job
from artifactgen.plan import Scope
from artifactgen.preflight import SUPPORTED, Preflight
from artifactgen.store.layout import Layout
from artifactgen.types import Receipt, Shard, Task
from distributed.build import Built
from distributed.progress import duration
from distributed.runners.base import Crew


def inputs(built: Built) -> Iterator[str]:
    """Data set, model and checkpoint."""
    job, catalog = built.job, built.job.catalog
    counts = ", ".join(f"{name} {len(index):,}" for name, index in catalog.splits.items())
    classes = f"{len(catalog.classes)} classes" if catalog.classes else "no labels"
    yield f"Data: {type(job.source).__name__}, records: {counts}; {classes}"
    if built.absent_splits:
        yield f"Data: there is no split {', '.join(built.absent_splits)} in this data set"
    height, width = job.model.image_size or (0, 0)
    head = f"{job.model.num_classes} classes" if built.loaded.has_head else "no classifier"
    yield f"Model: {job.model.backbone}, {height} × {width} pixels, {head}, {job.precision}"
    yield f"Checkpoint: {job.checkpoint.name}, {built.loaded.audit.summary()}"


def artifacts(ready: Preflight, built: Built) -> Iterator[str]:
    """What is made, and of which layers."""
    for name, status in ready.status.items():
        details = ", ".join(f"{key} {value}" for key, value in ready.details.get(name, {}).items())
        yield f"Artifact: {name}" + (
            f", {details}" if status == SUPPORTED else f" SKIPPED: {status}"
        )
    if built.switched_off:
        yield f"Artifact: {', '.join(built.switched_off)} switched off"


def plan(scopes: Sequence[Scope], ready: Preflight, crew_: Crew) -> Iterator[str]:
    """Shards, records, files and bytes to come."""
    records = sum(scope.records for scope in scopes)
    for scope in scopes:
        yield f"Plan: {scope.name}, {scope.records:,} records in {len(scope.shards):,} shards"
    yield (
        f"Plan: {records * ready.pictures_per_record:,} pictures, "
        f"about {size(records * ready.bytes_per_record)} in all"
    )
    yield from crew(crew_, ready)
    if ready.job.classes:
        names = [f"{index} {name}" for index, name in enumerate(ready.job.classes[:20])]
        yield f"Classes: {', '.join(names)}{', …' if ready.job.classes[20:] else ''}"


def crew(crew_: Crew, ready: Preflight) -> Iterator[str]:
    """Who does the work."""
    how = "Ray" if crew_.ray else "in this process"
    threads = "1 thread" if crew_.threads_per_worker == 1 else f"{crew_.threads_per_worker} threads"
    yield (
        f"Workers: {crew_.workers} × {device(ready.job)}, {threads} each, {how}; "
        f"batches of {ready.job.batch_size}"
    )


def resumed(
    scopes: Sequence[Scope], done: Mapping[Shard, Receipt], tasks: Sequence[Task]
) -> Iterator[str]:
    """What is there already; nothing for a new run."""
    total = sum(len(scope.shards) for scope in scopes)
    if len(tasks) < total:
        yield f"Resuming: {total - len(tasks)} of {total} shards are done, {len(tasks)} are left"


def outcome(records: int, failures: int, seconds: Mapping[str, float]) -> str:
    """One line at the end."""
    phases = ", ".join(
        f"{name} {value:.1f} s" for name, value in seconds.items() if name != "total"
    )
    return (
        f"Done: {records:,} records, {failures:,} failed, {duration(seconds['total'])} ({phases})"
    )


def where(layout: Layout) -> str:
    """Where to look."""
    return f"See {layout.root / 'summary.md'}" if layout.success.exists() else f"See {layout.root}"


def device(job: Job) -> str:
    """`cpu`, or the name of the GPU."""
    found = resolve_device(job.accelerator)
    return torch.cuda.get_device_name(found) if found.type == "cuda" else "cpu"


def size(size_bytes: float) -> str:
    """`12.3 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"
