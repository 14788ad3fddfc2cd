"""From a request to a finished run, in this process or wherever else its runner is entered."""

from __future__ import annotations

import errno
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from artifactgen.clock import Clock
from artifactgen.errors import RunError, forbid_exit
from artifactgen.store.output import check_output
from distributed import describe
from distributed.console import show_tracebacks
from distributed.inputs import build_runner, read_inputs
from distributed.request import Request
from distributed.run import Run, plan
from distributed.runners.base import Runner
from distributed.settings import ArtifactSettings, Settings, parse

log = logging.getLogger(__name__)


def perform(request: Request) -> None:
    """Do what is asked for, or take part in it.

    Raises:
        ArtifactGenError: it is wrong, or cannot be completed.
    """
    with guarded(request):
        settings, kinds = parse(request.configuration)
        with build_runner(settings).enter(settings.accelerator) as runner:
            if runner is not None:
                _begin(read_run(request, settings, kinds, runner))


def read_run(
    request: Request, settings: Settings, kinds: dict[str, ArtifactSettings], runner: Runner
) -> Run:
    """Everything that is known of a run without a model; it is said."""
    clock = Clock()
    with clock("setup"):
        inputs = read_inputs(settings, kinds)
        scopes = plan(settings, inputs)
    run = Run(settings, inputs, runner, request, scopes, clock)
    for line in describe.inputs(run):
        log.info(line)
    return run


def is_complete(run: Run) -> bool:
    """Whether nothing is left to do; it is said."""
    # Before the right to write is looked at: what is complete may lie in an archive.
    complete = run.layout.state.is_dir() and not run.changes() and run.is_complete()
    if complete:
        log.info("Complete: nothing to do. %s", describe.complete(run))
    return complete


def require_output(run: Run) -> None:
    """`OutputError` where the output directory cannot be used."""
    data_root = getattr(run.inputs.source, "root", None)
    check_output(run.layout, data_root=Path(data_root) if data_root else None)


def _begin(run: Run) -> None:
    """Do what is missing of a run."""
    if is_complete(run):
        return
    require_output(run)
    from distributed.execute import execute  # torch and timm take seconds to import

    execute(run)


@contextmanager
def guarded(request: Request) -> Iterator[None]:
    """Let users' modules be found; what they and the machine may do to a run, as errors of ours."""
    if request.configuration["debug"] is True:
        show_tracebacks()
    sys.path += [folder for folder in request.import_from if folder not in sys.path]
    try:
        with forbid_exit("Code of the configuration", "the job was running", RunError):
            yield
    except OSError as error:
        raise _explain_os_error(error) from error
    except MemoryError as error:
        raise RunError(
            f"There is not enough memory on this machine. {error}".strip()
            + "\nFree some, or take less of it: data.batch_size, data.num_workers, cluster.workers."
        ) from error


def _explain_os_error(error: OSError) -> RunError:
    if error.errno == errno.ENOSPC:
        return RunError(f"The disk is full: {error.filename or 'no space left'}. Free some space.")
    return RunError(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))
