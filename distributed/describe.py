"""What the program says of a run, in lines for a person. This file needs no torch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from artifactgen.plan import Scope
from artifactgen.store.layout import Layout
from artifactgen.types import SUPPORTED, Framing, Receipt, Shard, Task
from distributed.progress import duration
from distributed.run import Run
from distributed.runners.base import Workers

if TYPE_CHECKING:
    from artifactgen.device import Devices
    from artifactgen.firstlook import FirstLook
    from artifactgen.preflight import Preflight
    from distributed.build import Built


def inputs(run: Run) -> Iterator[str]:
    """Data set, model and checkpoint, as they were asked for, and where the artifacts go."""
    catalog, settings = run.inputs.catalog, run.settings
    counts = ", ".join(f"{name} {len(index):,}" for name, index in catalog.splits.items())
    classes = f"{len(catalog.classes)} classes" if catalog.classes else "no labels"
    yield f"Data: {type(run.inputs.source).__name__}, records: {counts}; {classes}"
    if run.inputs.absent_splits:
        yield f"Data: there is no split {', '.join(run.inputs.absent_splits)} in this data set"
    checkpoint = run.inputs.checkpoint
    named = (settings.model.options.get(option) for option in ("backbone", "path", "target"))
    name = next(filter(None, named), settings.model.target.rpartition(".")[2])
    yield f"Model: {name} from {checkpoint.path.name}, {size(checkpoint.size_bytes)}"
    kinds = ", ".join(run.inputs.kinds)
    off = run.inputs.switched_off
    yield f"Output: {kinds} to {run.layout.root}" + (f"; {', '.join(off)} off" if off else "")


def model(built: Built, *, precision: str | None = None) -> Iterator[str]:
    """What was loaded; `precision` where it is not decided here."""
    job, loaded = built.job, built.loaded
    height, width = job.model.image_size or (0, 0)
    head = f"{job.model.num_classes} classes" if loaded.has_head else "no classifier"
    computed_in = precision or job.precision
    yield f"Model: {job.model.name}, {height} × {width} pixels, {head}, {computed_in}"
    if framing := getattr(job.source, "framing", None):
        yield f"Pictures: {framed(framing, (height, width))}"
    if job.canvas_px is not None:
        yield (
            "Canvas: the source's own pictures, reduced where a side is longer than "
            f"{job.canvas_px:,} pixels (canvas_px)"
        )
    fit, *more = loaded.audit.summary().split("; ")
    yield f"Checkpoint: {job.checkpoint.path.name}, {'; '.join((fit, *more[:1]))}"
    yield from (f"Checkpoint: {part}" for part in more[1:])


def framed(framing: Framing, size: tuple[int, int]) -> str:
    """How pictures become the model's input."""
    height, width = (math.floor(side / framing.crop_pct) for side in size)
    both = framing.crop_mode == "squash" or height != width
    scaled = f"{height} × {width}" if both else str(height)
    side = {"center": "shorter side to ", "border": "longer side to "}.get(framing.crop_mode, "")
    crop = "" if (height, width) == size and not side else f", centre of {size[0]} × {size[1]}"
    return (
        f"{framing.interpolation}, {side}{scaled} pixels{crop} "
        f"(crop_mode {framing.crop_mode}, crop_pct {framing.crop_pct:.4g})"
    )


def artifacts(run: Run, ready: Preflight) -> Iterator[str]:
    """What is made, and of which layers."""
    for name, status in ready.status.items():
        details = [f"{key} {value}" for key, value in ready.resolved.get(name, {}).items()]
        made = ", ".join([name, *details])
        yield f"Artifact: {made if status == SUPPORTED else f'{name} SKIPPED: {status}'}"
    if run.inputs.switched_off:
        yield f"Artifact: {', '.join(run.inputs.switched_off)} switched off"


def first_look(found: FirstLook) -> Iterator[str]:
    """What the first records are like, and how well the model does on them."""
    yield f"Pixels: {found.pixels}"
    if found.accuracy:
        yield f"Accuracy on some records: {found.accuracy}"


def plan(run: Run, ready: Preflight, who: Workers, devices: Devices) -> Iterator[str]:
    """Shards, records, files and bytes to come."""
    records = sum(scope.records for scope in run.scopes)
    for scope in run.scopes:
        shards = counted(len(scope.shards), "shard")
        yield f"Plan: {scope.name}, {counted(scope.records, 'record')} in {shards}"
    yield (
        f"Plan: {records * ready.pictures_per_record:,} pictures, "
        f"about {size(records * ready.bytes_per_record)} in all"
    )
    yield from workers(who, devices, ready)
    if ready.job.classes:
        names = [f"{index} {name}" for index, name in enumerate(ready.job.classes[:20])]
        yield f"Classes: {', '.join(names)}{', …' if ready.job.classes[20:] else ''}"


def workers(who: Workers, devices: Devices, ready: Preflight) -> Iterator[str]:
    """Who does the work."""
    threads = "1 thread" if who.threads_each == 1 else f"{who.threads_each} threads"
    yield (
        f"Workers: {who.count} × {devices.name}, {threads} each, {who.where}; "
        f"batches of {ready.job.batch_size}"
    )


def resumed(
    scopes: Sequence[Scope], done: Mapping[Shard, Receipt], tasks: Sequence[Task]
) -> Iterator[str]:
    """What is there already; nothing for a new run."""
    total = sum(len(scope.shards) for scope in scopes)
    if len(tasks) < total:
        there = f"{total - len(tasks):,} of {counted(total, 'shard')}"
        yield f"Resuming: {there} done, {len(tasks):,} left"


def outcome(records: int, failures: int, seconds: Mapping[str, float]) -> str:
    """One line at the end."""
    stages = ", ".join(
        f"{name} {value:.1f} s" for name, value in seconds.items() if name != "total"
    )
    took = f"{duration(seconds['total'])} ({stages})"
    return f"Done: {counted(records, 'record')}, {failures:,} failed, {took}"


def where(layout: Layout) -> str:
    """Where to look."""
    return f"See {layout.root / 'summary.md'}" if layout.success.exists() else f"See {layout.root}"


def complete(run: Run) -> str:
    """Where to look, and what failed, of a run that is complete."""
    results = (run.result(scope.name) or {} for scope in run.scopes)
    failed = sum(result.get("failures", 0) for result in results)
    again = f"{counted(failed, 'record')} failed; retry_failures=true does them again. "
    return (again if failed else "") + where(run.layout)


def counted(number: int, what: str) -> str:
    """`1 record`, `1,200 records`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def size(size_bytes: float) -> str:
    """`12.3 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"
