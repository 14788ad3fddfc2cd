"""A run from the model to the last report: check, lock, do what is missing, merge, report."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain

from artifactgen.artifacts.base import Artifact
from artifactgen.assembly import Assembly
from artifactgen.confusion import Confusion
from artifactgen.device import Devices
from artifactgen.errors import ConfigError, OutputError, RunError, UsageError, forbid_exit
from artifactgen.pages.base import MergedRun, Page
from artifactgen.plan import Scope
from artifactgen.preflight import Preflight, preflight
from artifactgen.reducer import merge
from artifactgen.store.atomic import write_json
from artifactgen.store.calibrated import Calibrated, recall, remember
from artifactgen.store.fingerprint import difference
from artifactgen.store.layout import Layout
from artifactgen.store.ledger import committed
from artifactgen.store.lock import lock
from artifactgen.store.output import (
    open_output,
    remove_owned,
    require_own,
)
from artifactgen.types import Receipt, Shard, Task
from distributed import describe
from distributed.build import build, resolved
from distributed.finish import finish, merged_results, recipe
from distributed.progress import watch
from distributed.run import Run
from distributed.runners.base import Workers
from distributed.verdict import read_confusions

log = logging.getLogger(__name__)


def execute(run: Run) -> None:
    """Do what is missing of a run, and leave the output directory complete.

    Raises:
        UsageError: something is wrong that is known before any work.
        RunError: a shard failed, or more records than `max_failures` allows.
    """
    runner = run.runner
    devices = runner.devices(run.settings.accelerator)
    workers = runner.staff(devices, tasks=sum(len(scope.shards) for scope in run.scopes))
    changes, there = run.changes(), recall(run.layout)
    before = None if changes else there
    _check_device(run, before, devices)
    ready, calibrated = _prepare(run, devices, workers, before)
    _check_resolved(run, before, calibrated)
    patterns = _patterns(run, ready)
    if run.settings.dry_run:
        for line in describe.plan(run, ready, workers, devices):
            log.info(line)
        log.info("dry_run: nothing was written.")
        return
    with _exclusively(run.layout):
        if (run.changes(), recall(run.layout)) != (changes, there):
            raise OutputError(
                f"{run.layout.root}: another run has begun here meanwhile. "
                "Run the same command again."
            )
        _open(run, patterns)
        remember(run.layout, calibrated)
        _do(run, ready, devices)


def _prepare(
    run: Run, devices: Devices, workers: Workers, before: Calibrated | None
) -> tuple[Preflight, Calibrated]:
    """Load the model and take the first records all the way."""
    with run.clock("setup"):
        built = build(run, devices, threads_each=workers.threads_each, calibrated=before)
    for line in describe.model(built):
        log.info(line)
    with run.clock("preflight"):
        ready = preflight(
            built.job,
            built.loaded,
            rows=_rows(run),
            doubts=built.loaded.warnings,
            in_haste=not run.settings.strict,
        )
    for line in chain(describe.artifacts(run, ready), describe.first_look(ready.first_look)):
        log.info(line)
    _warn(run, ready.first_look.warnings)
    found, precision = ready.job.artifacts, built.job.precision
    calibrated = Calibrated.of(
        built.asked, found, device=devices.name, precision=precision, resolved=resolved(built)
    )
    return ready, calibrated


def _rows(run: Run) -> dict[str, int]:
    """Split to how many of its records are done; nothing for single records."""
    if run.settings.record_id:
        return {}
    return {scope.name: scope.records for scope in run.scopes}


def _warn(run: Run, warnings: Sequence[str]) -> None:
    """Say what looks wrong; `ConfigError` with `strict`."""
    for warning in warnings:
        log.warning("WARNING: %s", warning)
    if warnings and run.settings.strict:
        raise ConfigError(
            f"strict=true: {describe.counted(len(warnings), 'warning')}, see above. "
            "Mend the set-up, or leave out strict=true to go on in spite of them."
        )


def _check_resolved(run: Run, before: Calibrated | None, now: Calibrated) -> None:
    """Refuse to go on where a default of a class or of timm is another than it was."""
    changes = [] if before is None else difference(before.resolved, now.resolved)
    if changes:
        raise OutputError(
            f"{run.layout.root} was begun with something else behind the same settings: other "
            "defaults of a version, or another config.json beside the checkpoint:\n"
            + "".join(f"  {line}\n" for line in changes)
            + "Go on with what began it, or give another output_dir."
        )


def _check_device(run: Run, before: Calibrated | None, devices: Devices) -> None:
    """Refuse to go on with another kind of device: its bytes would be others."""
    if before is None or before.device in (devices.name, devices.kind):
        return
    begun_on_cpu, now_on_cpu = before.device.startswith("cpu"), devices.kind == "cpu"
    if begun_on_cpu == now_on_cpu:
        remedy = "Go on on a machine of that kind"
    else:
        remedy = f"Set accelerator={'cpu' if begun_on_cpu else 'gpu'}"
    raise OutputError(
        f"{run.layout.root} was begun on {before.device}, and this would go on on {devices.name}, "
        f"which rounds differently. {remedy}, or give another output_dir."
    )


def _patterns(run: Run, ready: Preflight) -> list[str]:
    """What the files of this run's kinds and pages are called."""
    owners: list[tuple[str, Artifact | Page]] = [*ready.job.artifacts.items()]
    owners += run.inputs.pages.items()
    for name, owner in owners:
        require_own(name, owner.files)
    return [pattern for _, owner in owners for pattern in owner.files]


@contextmanager
def _exclusively(layout: Layout) -> Iterator[None]:
    """Make the output directory, and hold its lock for the block."""
    try:
        layout.state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"output_dir={layout.root} cannot be made: {error.strerror}. Give another directory."
        ) from error
    with lock(layout.lock):
        yield


def _open(run: Run, patterns: Sequence[str]) -> None:
    """Resume what is there, or start anew."""
    changes = run.changes()
    if changes:
        log.info("overwrite=true: removing what other settings made: %s", "; ".join(changes))
        remove_owned(run.layout)
    if run.is_mended():
        log.warning(
            "retry_failures=true: the files of the data set hold other bytes than before. Only "
            "shards with failures are read again; that the rest is unchanged is taken on trust."
        )
    open_output(run.layout, run.inputs.deciding, patterns=patterns)


def _do(run: Run, ready: Preflight, devices: Devices) -> None:
    layout, pages = run.layout, run.inputs.pages.values()
    with run.clock("resume"):
        open_scopes = [scope for scope in run.scopes if run.is_open(scope.name)]
        done = _done_before(run, open_scopes, device=devices.name)
    tasks = [task for scope in open_scopes for task in scope.tasks(done)]
    workers = run.runner.staff(devices, tasks=len(tasks))
    _check_space(run, ready, records=sum(len(task.record_ids or task.shard) for task in tasks))
    for line in chain(
        describe.workers(workers, devices, ready), describe.resumed(run.scopes, done, tasks)
    ):
        log.info(line)
    if not run.settings.record_id:
        layout.success.unlink(missing_ok=True)
        for scope in run.scopes if run.pages_changed() else open_scopes:
            for page in pages:
                page.path(layout, scope.name).unlink(missing_ok=True)
    for scope in open_scopes:
        layout.scope(scope.name).result.unlink(missing_ok=True)
        scope_plan = {"shards": len(scope.shards), "records": scope.records}
        write_json(layout.scope(scope.name).plan, scope_plan, temp_dir=layout.temp)
    with run.clock("shards"):
        already = sum(r.records + len(r.failures) for r in done.values())
        total = sum(scope.records for scope in open_scopes)
        for receipt in watch(_receipts(run, ready, tasks, workers), total=total, done=already):
            done[receipt.shard] = receipt
    _require_all(open_scopes, done)
    with run.clock("merge"):
        for scope in open_scopes:
            merge(layout, scope, [done[shard] for shard in scope.shards], recipe(run, ready))
    results = merged_results(run)
    confusions: dict[str, Confusion] = {}
    if not run.settings.record_id:
        with run.clock("pages"):
            confusions = read_confusions(layout, ready.job.labels, results)
            _write_pages(run, MergedRun(ready.job, ready.excerpts, confusions))
    finish(run, ready, workers, results, confusions)


def _receipts(
    run: Run, ready: Preflight, tasks: Sequence[Task], workers: Workers
) -> Iterator[Receipt]:
    """What the workers commit; what was checked and has changed since is no wrong use."""
    assembly: Assembly | None = ready.take_assembly()
    if not workers.in_this_process:
        assembly = None  # workers load their own: this one's memory is given back
    if not tasks:
        return
    try:
        yield from run.runner.run(ready.job, tasks, workers, assembly)
    except UsageError as error:
        raise RunError(str(error)) from error


def _require_all(scopes: Sequence[Scope], done: Mapping[Shard, Receipt]) -> None:
    """`RunError` where the workers ended without an error, and shards are not done."""
    missing = [shard.name for scope in scopes for shard in scope.shards if shard not in done]
    if missing:
        raise RunError(
            f"The workers ended without an error, but {len(missing)} shards are not done: "
            f"{', '.join(missing[:5])}{', …' if missing[5:] else ''}."
        )


def _write_pages(run: Run, merged: MergedRun) -> None:
    """The pages that are missing, of the splits of this run."""
    for name, page in run.inputs.pages.items():
        for scope in run.scopes:
            if page.is_due(run.layout, scope.name):
                with forbid_exit(f"The page {name}", f"drawing {scope.name}", RunError):
                    page.write(merged, scope.name)
    write_json(run.layout.pages, run.page_options(), temp_dir=run.layout.temp)


def _done_before(run: Run, scopes: Sequence[Scope], *, device: str) -> dict[Shard, Receipt]:
    """What need not be done; with `retry_failures` shards that hold failures are not of it."""
    done: dict[Shard, Receipt] = {}
    same = {"fingerprint": run.inputs.fingerprint, "device": device}
    for scope in scopes:
        done |= committed(run.layout, scope.name, scope.shards, **same)
    failed = [receipt for receipt in done.values() if receipt.failures]
    if not run.settings.retry_failures or not failed:
        return done
    records = sum(len(receipt.failures) for receipt in failed)
    shards = describe.counted(len(failed), "shard")
    log.info("retry_failures: %s failed, in %s", describe.counted(records, "record"), shards)
    return {shard: receipt for shard, receipt in done.items() if not receipt.failures}


def _check_space(run: Run, ready: Preflight, *, records: int) -> None:
    need = records * ready.peak_bytes_per_record
    free = shutil.disk_usage(run.layout.root).free
    if need > free and run.settings.check_space:
        raise OutputError(
            f"{run.layout.root}: about {describe.size(need)} are needed, by what the first records "
            f"took, and {describe.size(free)} are free.\n"
            "Free some, give another output_dir, or go on all the same with check_space=false."
        )
