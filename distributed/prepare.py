"""What is done before the output directory is locked: the model loaded, first records tried."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain

from artifactgen.artifacts.base import Artifact
from artifactgen.data.stamps import Stamps
from artifactgen.device import Devices
from artifactgen.errors import ConfigError, OutputError
from artifactgen.pages.base import Page
from artifactgen.preflight import Preflight, preflight
from artifactgen.store.calibrated import Calibrated, recall
from artifactgen.store.fingerprint import difference
from artifactgen.store.output import require_own
from distributed import describe
from distributed.build import build, resolved
from distributed.run import Run
from distributed.runners.base import Workers
from distributed.unchanged import stamp

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that may begin, and the directory as it was found."""

    ready: Preflight
    devices: Devices
    workers: Workers
    """For the whole of the run; for what is left of it they are staffed anew."""
    calibrated: Calibrated
    patterns: Sequence[str]
    """What the files of this run's kinds and pages are called."""
    changes: Sequence[str]
    """What other settings had made what was there."""
    there: Calibrated | None
    """What had been decided of it before."""
    stamps: Stamps
    """The files of the data set as they were."""

    def is_as_found(self, run: Run) -> bool:
        """Whether the directory still is as it was when this was prepared."""
        return (run.changes(), recall(run.layout)) == (self.changes, self.there)

    def agrees(self, run: Run) -> bool:
        """Whether the directory was opened with these settings, and the same was decided."""
        decided = recall(run.layout)
        if decided is None or run.changes():
            return False
        return decided == self.there or _plain(decided) == _plain(self.calibrated)


def _plain(calibrated: Calibrated) -> str:
    """As it is on disk, where tuples are lists."""
    return json.dumps(asdict(calibrated), sort_keys=True)


def prepare(run: Run) -> Prepared:
    """Load the model and take the first records all the way; nothing is written.

    Raises:
        UsageError: something is wrong that is known before any work.
    """
    runner, stamps = run.runner, stamp(run)
    devices = runner.devices(run.settings.accelerator)
    workers = runner.staff(devices, tasks=sum(len(scope.shards) for scope in run.scopes))
    changes, there = run.changes(), recall(run.layout)
    before = None if changes else there
    _check_device(run, before, devices)
    ready, calibrated = _try(run, devices, workers, before)
    _check_resolved(run, before, calibrated)
    patterns = _patterns(run, ready)
    return Prepared(ready, devices, workers, calibrated, patterns, changes, there, stamps)


def _try(
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
