"""What can be known of a run before it is submitted: all but what a forward pass tells."""

from __future__ import annotations

import logging
import os
import shutil

from artifactgen.errors import ConfigError, OutputError
from distributed import describe
from distributed.inputs import build_runner
from distributed.perform import guarded, is_complete, read_run, require_output
from distributed.request import Request
from distributed.run import Run, require_sharable
from distributed.runners.inline import Inline
from distributed.runners.slurm import Slurm
from distributed.settings import Settings, parse
from distributed.slurm.options import JobOptions
from distributed.slurm.queue import ask
from distributed.slurm.submissions import submissions

log = logging.getLogger(__name__)

_LEAST_BYTES = 1000
"""Of a record's artifacts of one kind, however small its picture or vector is."""


def check(request: Request, options: JobOptions) -> Run | None:
    """Check a run; None where it is complete.

    Configuration, data set, checkpoint, classes, the output directory, and its jobs in the queue.
    The checkpoint is loaded, and nothing is computed: a login node may have no GPU.

    Raises:
        UsageError: the first thing that is wrong.
    """
    with guarded(request):
        settings, kinds = parse(request.configuration)
        _check_cluster(settings, options)
        run = read_run(request, settings, kinds, Inline())
        if is_complete(run):
            return None
        require_output(run)
        run.changes()
        _require_none_queued(run)
        _check_model(run, options)
        _check_room(run)
        return run


def _check_cluster(settings: Settings, options: JobOptions) -> None:
    runner = build_runner(settings)
    if not isinstance(runner, Slurm):
        raise ConfigError(
            f"cluster={settings.cluster.target.rpartition('.')[2].lower()}: what is submitted runs "
            "with cluster=slurm, which is chosen by itself. Leave cluster=… out."
        )
    if runner.jobs > 1:
        require_sharable(settings)
    if settings.accelerator == "gpu" and not options.asks_for_gpus:
        raise ConfigError(
            "accelerator=gpu, and the job asks for none. Add hydra.launcher.gpus_per_node=1."
        )


def _require_none_queued(run: Run) -> None:
    """Refuse a second job on one directory; of jobs that share a run, each looks after itself."""
    if run.settings.cluster.options.get("jobs", 1) > 1:
        return
    states = ask([submission.job_id for submission in submissions(run.layout)])
    queued = [state for state in states.values() if state.answered and not state.is_over]
    if queued:
        raise OutputError(
            f"{run.layout.root}: job {queued[0].job_id} is {queued[0].state} for this directory. "
            f"Wait for it, cancel it (scancel {queued[0].job_id}), or give another output_dir."
        )


def _check_model(run: Run, options: JobOptions) -> None:
    """Load the checkpoint into the model, on the CPU, and match what is asked for to it."""
    from artifactgen.device import Devices  # torch and timm take seconds to import
    from artifactgen.preflight import bind
    from distributed.build import build

    kind = "cuda" if options.asks_for_gpus else "cpu"
    devices = Devices(kind, name="", gpus=0, computes_bf16=False)
    built = build(run, devices, threads_each=1, calibrated=None)
    auto = "precision as the node's devices have it"
    for line in describe.model(built, precision=auto if run.settings.precision == "auto" else None):
        log.info(line)
    bind(built.job, built.loaded)


def _check_room(run: Run) -> None:
    """Refuse where not even the smallest artifacts would fit, by bytes or by files."""
    if not run.settings.check_space:
        return
    root = next(path for path in (run.layout.root, *run.layout.root.parents) if path.exists())
    records = sum(scope.records for scope in run.scopes)
    need, free = records * len(run.inputs.kinds) * _LEAST_BYTES, shutil.disk_usage(root).free
    left, files = os.statvfs(root), records * (len(run.inputs.kinds) - 1)
    if need > free or (left.f_files and files > left.f_favail):
        raise OutputError(
            f"{root}: at least {describe.size(need)} in {files:,} files are needed, and "
            f"{describe.size(free)} in {left.f_favail:,} files are free.\n"
            "Free some, give another output_dir, or go on all the same with check_space=false."
        )
