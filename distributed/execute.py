"""A run from the model to the last report: check, lock, do what is missing, merge, report."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from artifactgen.confusion import Confusion
from artifactgen.errors import RunError, forbid_exit
from artifactgen.pages.base import MergedRun
from artifactgen.plan import Scope
from artifactgen.reducer import merge
from artifactgen.store.atomic import write_json
from artifactgen.store.ledger import committed
from artifactgen.store.lock import part_name, parts_at_work
from artifactgen.store.siblings import Siblings, look_again, siblings
from artifactgen.types import Part, Receipt, Shard
from distributed import describe
from distributed.finish import finish, merged_results, recipe
from distributed.opening import begun_meanwhile, enter, locked, open_directory
from distributed.prepare import Prepared, prepare
from distributed.run import Run, require_sharable
from distributed.runners.base import Workers
from distributed.unchanged import require_same_data_set
from distributed.verdict import read_confusions
from distributed.work import share, work

log = logging.getLogger(__name__)


def execute(run: Run) -> None:
    """Do what is missing of a run, and leave the output directory complete.

    Where the run is shared by several jobs, this is one of them. It does its part, and the last
    one completes the directory. A part that is done ends without an error, whatever became of the
    others: `_SUCCESS.json` says of the run whether it is complete.

    Raises:
        UsageError: something is wrong that is known before any work.
        RunError: a shard failed, or more records than `max_failures` allows.
    """
    part = run.runner.part()
    if part is not None:
        require_sharable(run.settings)
    prepared = prepare(run)
    if run.settings.dry_run:
        if part is not None:
            log.info(share(run.scopes, part))
        for line in describe.plan(run, prepared.ready, prepared.workers, prepared.devices):
            log.info(line)
        log.info("dry_run: nothing was written.")
        return
    with locked(run.layout, part=part):
        if part is None:
            _execute_all(run, prepared)
            return
        with siblings(run.layout.lock) as others:
            _execute_part(run, prepared, part, others)


def _execute_all(run: Run, prepared: Prepared) -> None:
    if not prepared.is_as_found(run):
        raise begun_meanwhile(run)
    open_directory(run, prepared)
    scopes = run.open_scopes()
    done, workers = work(run, prepared, scopes)
    _complete(run, prepared, workers, scopes, done)


def _execute_part(run: Run, prepared: Prepared, part: Part, others: Siblings) -> None:
    """Do a part of the shards, and merge all of them if no other part is at work any more."""
    entered = enter(run, others, prepared, part)
    if entered is None:
        log.info("Part %s is done; another one merges.", part_name(part))
        return
    prepared = entered
    if run.is_complete():
        log.info("Complete: nothing to do. %s", describe.complete(run))
        return
    done, workers = work(run, prepared, run.open_scopes(), part)
    name = f"Part {part_name(part)} is done"
    if not others.try_alone():
        at_work = len(parts_at_work(run.layout.lock, but=part))
        log.info("%s; %s at work, the last one merges.", name, _others(at_work))
        return
    look_again(run.layout, [scope.name for scope in run.scopes])
    if run.is_complete():
        log.info("%s; another one has merged. %s", name, describe.complete(run))
        return
    scopes = run.open_scopes()
    if missing := _gather(run, prepared, scopes, done):
        log.info("%s; the run is not complete: %s left.", name, _by_part(missing, part))
        log.info("Jobs that are still queued do that; else run the same command again.")
        return
    log.info("%s, and so are all others: merging.", name)
    _complete(run, prepared, workers, scopes, done)


def _others(number: int) -> str:
    return "another one is" if number < 2 else f"{number} others are"


def _gather(
    run: Run, prepared: Prepared, scopes: Sequence[Scope], done: dict[Shard, Receipt]
) -> set[Shard]:
    """Add what the other parts have done to what this one has; the shards that nobody has done.

    All files are read and verified, but not before every shard is said to be done.
    """
    planned = {shard for scope in scopes for shard in scope.shards}
    recorded = {receipt.shard for scope in scopes for receipt in run.recorded(scope)}
    if missing := planned - recorded:
        return missing
    same = {"fingerprint": run.inputs.fingerprint, "device": prepared.devices.name}
    with run.clock("resume"):
        for scope in scopes:
            of_others = [shard for shard in scope.shards if shard not in done]
            done |= committed(run.layout, scope.name, of_others, **same)
    return planned - done.keys()


def _by_part(missing: Iterable[Shard], part: Part) -> str:
    """`12 shards of part 3 of 8, 1 shard of part 5 of 8`."""
    left = Counter(shard.index % part.count for shard in missing)
    return ", ".join(
        f"{describe.counted(left[index], 'shard')} of part {part_name(Part(index, part.count))}"
        for index in sorted(left)
    )


def _complete(
    run: Run,
    prepared: Prepared,
    workers: Workers,
    scopes: Sequence[Scope],
    done: Mapping[Shard, Receipt],
) -> None:
    """Merge the scopes, all of whose shards are done, and report the run."""
    ready = prepared.ready
    if not run.settings.record_id:  # of those, what was read has been looked at
        require_same_data_set(run)
    with run.clock("merge"):
        for scope in scopes:
            receipts = [done[shard] for shard in scope.shards]
            merge(run.layout, scope, receipts, recipe(run, ready))
    results = merged_results(run)
    confusions: dict[str, Confusion] = {}
    if not run.settings.record_id:
        with run.clock("pages"):
            confusions = read_confusions(run.layout, ready.job.labels, results)
            _write_pages(run, MergedRun(ready.job, ready.excerpts, confusions))
    finish(run, ready, workers, results, confusions)


def _write_pages(run: Run, merged: MergedRun) -> None:
    """The pages that are missing, of the splits of this run."""
    for name, page in run.inputs.pages.items():
        for scope in run.scopes:
            if page.is_due(run.layout, scope.name):
                with forbid_exit(f"The page {name}", f"drawing {scope.name}", RunError):
                    page.write(merged, scope.name)
    write_json(run.layout.pages, run.page_options(), temp_dir=run.layout.temp)
