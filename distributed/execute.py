"""A run from beginning to end: check, lock, do what is missing, merge, report."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path

from artifactgen.errors import OutputError
from artifactgen.job import bind_artifacts, subject_of
from artifactgen.pages.overview import write_overview
from artifactgen.plan import Scope
from artifactgen.preflight import Preflight, preflight
from artifactgen.reducer import merge
from artifactgen.store.atomic import write_json
from artifactgen.store.calibrated import recall, remember
from artifactgen.store.layout import OWNED_FILES, Layout
from artifactgen.store.ledger import committed
from artifactgen.store.lock import lock
from artifactgen.store.output import (
    check_output,
    difference_to,
    open_output,
    refuse_other_settings,
    remove_owned,
)
from artifactgen.types import Receipt, Shard
from distributed import describe
from distributed.finish import finish, recipe
from distributed.progress import watch
from distributed.run import Run
from distributed.runners.base import choose_crew, run_tasks

log = logging.getLogger(__name__)


def execute(run: Run) -> None:
    """Do what is missing of a run, and leave the output directory complete.

    Raises:
        UsageError: something is wrong that is known before any work.
        RunError: a shard failed, or more records than `max_failures` allows.
    """
    for line in describe.inputs(run.built):
        log.info(line)
    data_root = getattr(run.built.job.source, "root", None)
    check_output(run.layout, data_root=Path(data_root) if data_root else None)
    changes = _changes(run)
    if not changes and _is_complete(run):
        log.info("Complete: nothing to do. %s", describe.where(run.layout))
        return
    job = run.built.job
    with run.phases("preflight"):
        artifacts = job.artifacts if changes else recall(run.layout, job.artifacts)
        ready = preflight(replace(job, artifacts=artifacts))
    shards = sum(len(scope.shards) for scope in run.scopes)
    crew = choose_crew(run.settings.cluster, ready.job, tasks=shards)
    for line in describe.artifacts(ready, run.built):
        log.info(line)
    if run.settings.dry_run:
        for line in describe.plan(run.scopes, ready, crew):
            log.info(line)
        log.info("dry_run: nothing was written.")
        return
    with _exclusively(run.layout):
        _settle_settings(run)
        remember(run.layout, job.artifacts, ready.job.artifacts)
        _do(run, ready)


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


def _changes(run: Run) -> list[str]:
    """How the settings differ from those that made what is there, where that may be replaced."""
    changes = difference_to(run.layout, run.built.settings)
    if changes and not run.settings.overwrite:
        refuse_other_settings(run.layout, changes)
    if changes and run.settings.record_id:
        raise OutputError(
            "overwrite=true with record_id would remove the artifacts of all other records. "
            "Give another output_dir."
        )
    return changes


def _settle_settings(run: Run) -> None:
    """Go on with what is there, or start anew."""
    changes = _changes(run)
    if changes:
        log.info("overwrite=true: removing what other settings made: %s", "; ".join(changes))
        remove_owned(run.layout)
    open_output(run.layout, run.built.settings)


def _is_complete(run: Run) -> bool:
    results = [run.result(scope.name) for scope in run.scopes]
    if run.settings.record_id:
        return all(result is not None and not result["failures"] for result in results)
    reports = [run.layout.root / name for name in OWNED_FILES]
    reports += [run.layout.overview(scope.name) for scope in run.scopes]
    return None not in results and all(report.exists() for report in reports)


def _do(run: Run, ready: Preflight) -> None:
    with run.phases("resume"):
        open_scopes = [scope for scope in run.scopes if run.result(scope.name) is None]
        done = _done_before(run, open_scopes)
    tasks = [task for scope in open_scopes for task in scope.tasks(done)]
    crew = choose_crew(run.settings.cluster, ready.job, tasks=len(tasks))
    _check_space(run, ready, records=sum(len(task.record_ids or task.shard) for task in tasks))
    for line in chain(describe.crew(crew, ready), describe.resumed(run.scopes, done, tasks)):
        log.info(line)
    if not run.settings.record_id:
        run.layout.success.unlink(missing_ok=True)
    for scope in open_scopes:
        run.layout.scope(scope.name).result.unlink(missing_ok=True)
        run.layout.overview(scope.name).unlink(missing_ok=True)
        scope_plan = {"shards": len(scope.shards), "records": scope.records}
        write_json(run.layout.scope(scope.name).plan, scope_plan, temp_dir=run.layout.temp)
    with run.phases("shards"):
        receipts = run_tasks(ready.job, tasks, crew) if tasks else ()
        before = sum(r.records + len(r.failures) for r in done.values())
        total = sum(scope.records for scope in open_scopes)
        for receipt in watch(receipts, total=total, done=before):
            done[receipt.shard] = receipt
    with run.phases("merge"):
        for scope in open_scopes:
            merge(run.layout, scope, [done[shard] for shard in scope.shards], recipe(run, ready))
    with run.phases("overview"):
        _draw_overviews(run, ready)
    finish(run, ready, crew)


def _draw_overviews(run: Run, ready: Preflight) -> None:
    """The contact sheets that are missing, of the splits of this run."""
    missing = [s.name for s in run.scopes if not run.layout.overview(s.name).exists()]
    if run.settings.record_id or not missing:
        return
    artifacts, _ = bind_artifacts(ready.job.artifacts, subject_of(ready.job, run.built.loaded))
    for split in missing:
        write_overview(ready.job, artifacts, split)


def _done_before(run: Run, scopes: Sequence[Scope]) -> dict[Shard, Receipt]:
    done: dict[Shard, Receipt] = {}
    for scope in scopes:
        done |= committed(
            run.layout, scope.name, scope.shards, fingerprint=run.built.job.fingerprint
        )
    return done


def _check_space(run: Run, ready: Preflight, *, records: int) -> None:
    need = records * ready.peak_bytes_per_record
    free = shutil.disk_usage(run.layout.root).free
    if need > free:
        raise OutputError(
            f"{run.layout.root}: about {need / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are "
            "free. Free some, or give another output_dir."
        )
