"""The end of a run: what its files say of it, and whether it may be called complete."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

from artifactgen import __version__
from artifactgen.confusion import Confusion
from artifactgen.errors import ConfigError, RunError
from artifactgen.preflight import Preflight
from artifactgen.reducer import Recipe
from artifactgen.store.atomic import write_json
from artifactgen.store.output import foreign_files
from artifactgen.store.report import RunFacts, write_reports
from artifactgen.store.results import recorded_failures
from distributed import describe
from distributed.inputs import plain
from distributed.run import Run
from distributed.runners.base import Workers
from distributed.verdict import Verdict, judge

log = logging.getLogger(__name__)


def recipe(run: Run, ready: Preflight) -> Recipe:
    """What the merged files say besides their rows."""
    job = ready.job
    return Recipe(
        embedding_shape=ready.embedding_shape,
        classes=job.labels.names,
        meta={
            "model": job.model.name,
            "checkpoint_sha256": job.checkpoint.sha256,
            "precision": job.precision,
            "image_size": list(job.model.image_size or ()),
            "mean": list(job.normalization.mean),
            "std": list(job.normalization.std),
            "framing": plain(getattr(job.source, "framing", None)),
            "artifactgen": __version__,
            **ready.resolved.get("embeddings", {}),
        },
        status=_status(run, ready),
        fingerprint=job.fingerprint,
    )


def _status(run: Run, ready: Preflight) -> dict[str, str]:
    return {**ready.status, **dict.fromkeys(run.inputs.switched_off, "off")}


def finish(
    run: Run,
    ready: Preflight,
    workers: Workers,
    results: Mapping[str, dict[str, Any]],
    confusions: Mapping[str, Confusion],
) -> None:
    """Report a run whose scopes are merged, and declare it complete.

    Args:
        run: the command.
        ready: what was found out before.
        workers: who did the work.
        results: see `merged_results`.
        confusions: split to labels against predictions.

    Raises:
        RunError: more records failed than `max_failures` allows.
        ConfigError: with `strict`, the accuracy says that the set-up is wrong.
    """
    verdict = judge(ready.job.labels, confusions, results)
    if not run.settings.record_id:
        _report(run, ready, workers, results, verdict)
        _tell(verdict)
    own = [results[scope.name] for scope in run.scopes]
    records, failures = _count(own)
    log.info(describe.outcome(records, failures, run.clock.with_total()))
    for name in foreign_files(run.layout):
        log.info("%s is not of this program, and was left alone.", run.layout.root / name)
    _check_failures(run, results)
    if verdict.of_accuracy and run.settings.strict:
        raise ConfigError(
            "strict=true: everything is done, and the accuracy says that the set-up is wrong, see "
            "above. Mend it and give another output_dir, or leave out strict=true to accept this."
        )
    if not run.settings.record_id:
        success = {"fingerprint": run.inputs.fingerprint, "splits": list(results)}
        write_json(run.layout.success, success, temp_dir=run.layout.temp)
    shutil.rmtree(run.layout.temp, ignore_errors=True)
    log.info(describe.where(run.layout))


def _tell(verdict: Verdict) -> None:
    for line in verdict.lines():
        log.info("Accuracy: %s", line)
    for warning in verdict.warnings:
        log.warning("WARNING: %s", warning)


def _count(results: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """Records that are done, and records that failed."""
    every = list(results)
    return sum(result["records"] for result in every), sum(result["failures"] for result in every)


def _check_failures(run: Run, results: Mapping[str, Mapping[str, Any]]) -> None:
    """Check what is to be called complete: not more than `max_failures` of it failed."""
    records, failures = _count(results.values())
    if failures <= run.settings.max_failures * (records + failures):
        return
    first = next(f for scope in results for f in recorded_failures(run.layout, scope))
    raise RunError(
        f"{failures} of {records + failures} records failed, more than max_failures="
        f"{run.settings.max_failures} allows; the rest is complete.\n"
        f"The first, {first.record_id}: {first.reason}\n"
        + ("" if run.settings.record_id else f"All are in {run.layout.root / 'failures.csv'}.\n")
        + "To do them again, once what ails them is mended, add retry_failures=true; "
        "to accept them, raise max_failures."
    )


def merged_results(run: Run) -> dict[str, dict[str, Any]]:
    """Results of all splits that are merged in the directory, by this run or an earlier one.

    Of a request for single records, its own alone.
    """
    if run.settings.record_id:
        return {run.scopes[0].name: run.result(run.scopes[0].name) or {}}
    names = list(dict.fromkeys((*run.inputs.all_splits, *(scope.name for scope in run.scopes))))
    results = {name: run.result(name) for name in names}
    return {name: result for name, result in results.items() if result is not None}


def _report(
    run: Run,
    ready: Preflight,
    workers: Workers,
    results: Mapping[str, dict[str, Any]],
    verdict: Verdict,
) -> None:
    failures = [f for name in results for f in recorded_failures(run.layout, name)]
    job, audit = ready.job, ready.audit
    status = _status(run, ready)
    facts = RunFacts(
        command=run.request.command,
        configuration=run.request.configuration,
        settings=run.inputs.deciding,
        fingerprint=job.fingerprint,
        checkpoint={
            "path": str(job.checkpoint.path),
            "sha256": job.checkpoint.sha256,
            "summary": audit.summary(),
            "audit": audit.as_dict(),
        },
        artifacts={
            name: {"status": status[name], **ready.resolved.get(name, {})} for name in status
        },
        first_look={"pixels": ready.first_look.pixels, "accuracy": ready.first_look.accuracy},
        accuracy=verdict.report(),
        warnings=(*ready.first_look.doubts, *verdict.of_accuracy),
        empty_maps=verdict.of_maps,
        workers=workers.count,
        started=run.clock.started,
        seconds=run.clock.with_total(),
    )
    write_reports(run.layout, results, failures, facts, classes=job.classes or job.labels.names)
