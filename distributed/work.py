"""The shards of a run, or those of one part of it: what is missing is done."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain

from artifactgen.assembly import Assembly
from artifactgen.errors import OutputError, RunError, UsageError
from artifactgen.plan import Scope
from artifactgen.preflight import Preflight
from artifactgen.store.atomic import write_json
from artifactgen.store.ledger import committed
from artifactgen.store.lock import part_name
from artifactgen.types import Part, Receipt, Shard, Task
from distributed import describe
from distributed.listings import keep_listings
from distributed.prepare import Prepared
from distributed.progress import watch
from distributed.run import Run
from distributed.runners.base import Workers
from distributed.unchanged import require_unchanged

log = logging.getLogger(__name__)


def work(
    run: Run, prepared: Prepared, scopes: Sequence[Scope], part: Part | None = None
) -> tuple[dict[Shard, Receipt], Workers]:
    """Do what is missing of the scopes, or of a part of their shards.

    Returns:
        The receipts of all these shards, and who did the work.

    Raises:
        RunError: a shard failed, or the workers ended before all were done.
        OutputError: there is not enough space.
    """
    ready, devices = prepared.ready, prepared.devices
    own = scopes if part is None else of_part(scopes, part)
    with run.clock("resume"):
        done = _done_before(run, own, device=devices.name)
    tasks = [task for scope in own for task in scope.tasks(done)]
    workers = run.runner.staff(devices, tasks=len(tasks))
    if part is None:
        records = sum(len(task.record_ids or task.shard) for task in tasks)
    else:
        records = sum(_not_committed(run, scope) for scope in scopes)
        log.info(share(scopes, part))
    _check_space(run, ready, records=records)
    planned = run.scopes if part is None else own
    for line in chain(
        describe.workers(workers, devices, ready), describe.resumed(planned, done, tasks)
    ):
        log.info(line)
    _withdraw(run, scopes)
    with run.clock("shards"):
        already = sum(r.records + len(r.failures) for r in done.values())
        total = sum(scope.records for scope in own)
        for receipt in watch(_receipts(run, ready, tasks, workers), total=total, done=already):
            done[receipt.shard] = receipt
        require_unchanged(run, prepared.stamps)
    _require_all(own, done)
    return done, workers


def of_part(scopes: Sequence[Scope], part: Part) -> list[Scope]:
    """The scopes with the shards of one part alone."""
    return [replace(s, shards=tuple(filter(part.holds, s.shards))) for s in scopes]


def share(scopes: Sequence[Scope], part: Part) -> str:
    """`Part 3 of 8: 12 of 96 shards`."""
    own, every = (sum(len(scope.shards) for scope in s) for s in (of_part(scopes, part), scopes))
    return f"Part {part_name(part)}: {own:,} of {describe.counted(every, 'shard')}"


def _not_committed(run: Run, scope: Scope) -> int:
    """How many records are still to be written, by whichever part, into the same space."""
    state = run.layout.scope(scope.name)
    there = {path.name for path in state.ledger.glob("*.json")}
    return sum(len(shard) for shard in scope.shards if state.entry(shard).name not in there)


def _withdraw(run: Run, scopes: Sequence[Scope]) -> None:
    """Take back what says that the scopes are done, and write down what is planned."""
    layout, pages = run.layout, run.inputs.pages.values()
    if not run.settings.record_id:
        layout.success.unlink(missing_ok=True)
        for scope in run.scopes if run.pages_changed() else scopes:
            for page in pages:
                page.path(layout, scope.name).unlink(missing_ok=True)
    for scope in scopes:
        layout.scope(scope.name).result.unlink(missing_ok=True)
        scope_plan = {"shards": len(scope.shards), "records": scope.records}
        write_json(layout.scope(scope.name).plan, scope_plan, temp_dir=layout.temp)


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
        yield from run.runner.run(keep_listings(ready.job), tasks, workers, assembly)
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
