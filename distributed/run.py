"""A run from beginning to end: check, lock, plan, do what is missing, merge, report."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

from artifactgen import __version__
from artifactgen.errors import OutputError, RunError
from artifactgen.preflight import Preflight, preflight
from artifactgen.store.atomic import write_json
from artifactgen.store.layout import Layout
from artifactgen.store.ledger import committed, recorded_failures
from artifactgen.store.lock import lock
from artifactgen.store.merge import Recipe, merge, merged
from artifactgen.store.output import (
    check_output,
    difference_to,
    foreign_files,
    open_output,
    refuse_other_settings,
    remove_owned,
)
from artifactgen.store.plan import Scope
from artifactgen.store.report import RunFacts, write_reports
from artifactgen.types import Receipt, Shard
from distributed import describe
from distributed.build import Built
from distributed.planning import plan_records, plan_splits
from distributed.progress import watch
from distributed.runners import Crew, choose_crew, run_tasks
from distributed.settings import Settings

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Phases:
    """Seconds of the run by phase."""

    seconds: dict[str, float] = field(default_factory=dict)
    started: datetime = field(default_factory=lambda: datetime.now().astimezone())
    _start: float = field(default_factory=time.perf_counter)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Charge the block to a phase."""
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)

    def with_total(self) -> dict[str, float]:
        """By phase, and `total` since the start."""
        return {**self.seconds, "total": round(time.perf_counter() - self._start, 3)}


@dataclass(frozen=True, slots=True)
class Run:
    """One command, and everything that was built for it."""

    settings: Settings
    built: Built
    command: str
    """Typed again, it resumes the run."""
    configuration: Mapping[str, Any]
    scopes: tuple[Scope, ...]
    phases: Phases

    @property
    def layout(self) -> Layout:
        return self.built.job.layout

    @property
    def records(self) -> int:
        return sum(scope.records for scope in self.scopes)


def plan(settings: Settings, built: Built) -> tuple[Scope, ...]:
    """The scopes of a run: the splits, or the records that were asked for by id."""
    splits, batch_size = built.job.catalog.splits, built.job.batch_size
    scopes = plan_splits(splits, batch_size=batch_size, limit=settings.limit)
    if settings.record_id:
        return (plan_records(scopes, splits, settings.record_id, batch_size=batch_size),)
    return tuple(scopes)


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
    if run.settings.dry_run:
        _dry_run(run)
        return
    with lock(run.layout.lock):
        _settle_settings(run)
        if _is_complete(run):
            log.info("Complete: nothing to do. %s", describe.where(run.layout))
            return
        _do(run)


def _dry_run(run: Run) -> None:
    changes = difference_to(run.layout, run.built.settings)
    if changes and not run.settings.overwrite:
        refuse_other_settings(run.layout, changes)
    ready = preflight(run.built.job)
    shards = sum(len(scope.shards) for scope in run.scopes)
    crew = choose_crew(run.settings.cluster, ready.job, tasks=shards)
    for line in chain(describe.artifacts(ready, run.built), describe.plan(run.scopes, ready, crew)):
        log.info(line)
    log.info("dry_run: nothing was written.")


def _settle_settings(run: Run) -> None:
    """Go on with what is there, start anew, or refuse."""
    changes = difference_to(run.layout, run.built.settings)
    if changes and not run.settings.overwrite:
        refuse_other_settings(run.layout, changes)
    if changes and run.settings.record_id:
        raise OutputError(
            "overwrite=true with record_id would remove the artifacts of all other records. "
            "Give another output_dir."
        )
    if changes:
        log.info("overwrite=true: removing what other settings made: %s", "; ".join(changes))
        remove_owned(run.layout)
    open_output(run.layout, run.built.settings)


def _is_complete(run: Run) -> bool:
    return all(_result(run, scope.name) is not None for scope in run.scopes) and (
        run.layout.success.exists() or bool(run.settings.record_id)
    )


def _result(run: Run, scope: str) -> dict[str, Any] | None:
    return merged(run.layout, scope, fingerprint=run.built.job.fingerprint)


def _do(run: Run) -> None:
    with run.phases("preflight"):
        ready = preflight(run.built.job)
    for line in describe.artifacts(ready, run.built):
        log.info(line)
    with run.phases("resume"):
        open_scopes = [scope for scope in run.scopes if _result(run, scope.name) is None]
        done = _done_before(run, open_scopes)
    tasks = [task for scope in open_scopes for task in scope.tasks(done)]
    crew = choose_crew(run.settings.cluster, ready.job, tasks=len(tasks))
    _check_space(run, ready, records=sum(len(task.record_ids or task.shard) for task in tasks))
    for line in chain(describe.crew(crew, ready), describe.resumed(run.scopes, done, tasks)):
        log.info(line)
    if not run.settings.record_id:
        run.layout.success.unlink(missing_ok=True)
    for scope in open_scopes:
        scope_plan = {"shards": len(scope.shards), "records": scope.records}
        write_json(run.layout.scope(scope.name).plan, scope_plan, temp_dir=run.layout.temp)
    with run.phases("shards"):
        receipts = run_tasks(ready.job, tasks, crew)
        before = sum(r.records + len(r.failures) for r in done.values())
        total = sum(scope.records for scope in open_scopes)
        for receipt in watch(receipts, total=total, done=before):
            done[receipt.shard] = receipt
    with run.phases("merge"):
        for scope in open_scopes:
            merge(run.layout, scope, [done[shard] for shard in scope.shards], _recipe(run, ready))
    _finish(run, ready, crew)


def _done_before(run: Run, scopes: Sequence[Scope]) -> dict[Shard, Receipt]:
    done: dict[Shard, Receipt] = {}
    for scope in scopes:
        done |= committed(
            run.layout, scope.name, scope.shards, fingerprint=run.built.job.fingerprint
        )
    return done


def _check_space(run: Run, ready: Preflight, *, records: int) -> None:
    need = records * ready.bytes_per_record
    free = shutil.disk_usage(run.layout.root).free
    if need > free:
        raise OutputError(
            f"{run.layout.root}: about {need / 1e9:.1f} GB are needed and {free / 1e9:.1f} GB are "
            "free. Free some, or give another output_dir."
        )


def _recipe(run: Run, ready: Preflight) -> Recipe:
    job = ready.job
    return Recipe(
        embedding_shape=ready.embedding_shape,
        classes=job.catalog.classes,
        meta={
            "model": job.model.backbone,
            "checkpoint_sha256": job.checkpoint_sha256,
            "precision": job.precision,
            "image_size": list(job.model.image_size or ()),
            "artifactgen": __version__,
            **ready.details.get("embeddings", {}),
        },
        status=_status(run, ready),
        fingerprint=job.fingerprint,
    )


def _status(run: Run, ready: Preflight) -> dict[str, str]:
    return {**ready.status, **dict.fromkeys(run.built.switched_off, "off")}


def _finish(run: Run, ready: Preflight, crew: Crew) -> None:
    if run.settings.record_id:
        results = {run.scopes[0].name: _result(run, run.scopes[0].name) or {}}
    else:
        results = _merged_splits(run)
        _report(run, ready, crew, results)
    own = [results[scope.name] for scope in run.scopes]
    records = sum(result["records"] for result in own)
    failures = sum(result["failures"] for result in own)
    log.info(describe.outcome(records, failures, run.phases.with_total()))
    for name in foreign_files(run.layout):
        log.info("%s is not of this program, and was left alone.", run.layout.root / name)
    if failures > run.settings.max_failures * (records + failures):
        raise RunError(
            f"{failures} of {records + failures} records failed, more than max_failures="
            f"{run.settings.max_failures} allows; the rest is complete.\n"
            f"See {run.layout.root / 'failures.csv'}."
        )
    if not run.settings.record_id:
        success = {"fingerprint": run.built.job.fingerprint, "splits": list(results)}
        write_json(run.layout.success, success, temp_dir=run.layout.temp)
    shutil.rmtree(run.layout.temp, ignore_errors=True)
    log.info(describe.where(run.layout))


def _merged_splits(run: Run) -> dict[str, dict[str, Any]]:
    """Results of all splits that are merged in the directory, by this run or an earlier one."""
    names = list(dict.fromkeys((*run.built.all_splits, *(scope.name for scope in run.scopes))))
    results = {name: _result(run, name) for name in names}
    return {name: result for name, result in results.items() if result is not None}


def _report(run: Run, ready: Preflight, crew: Crew, results: Mapping[str, dict[str, Any]]) -> None:
    failures = [f for name in results for f in recorded_failures(run.layout, name)]
    job, audit = ready.job, run.built.loaded.audit
    status = _status(run, ready)
    facts = RunFacts(
        command=run.command,
        configuration=run.configuration,
        settings=run.built.settings,
        fingerprint=job.fingerprint,
        checkpoint={
            "path": str(job.checkpoint),
            "sha256": job.checkpoint_sha256,
            "summary": audit.summary(),
            "audit": audit.as_dict(),
        },
        artifacts={
            name: {"status": status[name], **ready.details.get(name, {})} for name in status
        },
        device=describe.device(job),
        workers=crew.workers,
        started=run.phases.started,
        seconds=run.phases.with_total(),
    )
    write_reports(run.layout, results, failures, facts, classes=job.classes)
