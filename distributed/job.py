"""One job: a composed configuration becomes a run. Hydra calls it, here or on a cluster."""

from __future__ import annotations

import errno
import logging
import shlex
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from artifactgen.clock import Clock
from artifactgen.errors import ArtifactGenError, ConfigError, RunError, forbid_exit
from artifactgen.store.layout import safe_name
from artifactgen.store.output import check_output
from distributed import describe
from distributed.console import log_error, show_tracebacks
from distributed.inputs import read_inputs
from distributed.run import Run, plan
from distributed.settings import parse

log = logging.getLogger(__name__)

SWEEP_NAMING = "hydra.job.config.override_dirname.exclude_keys="
"""The override that the command line adds to a sweep, so that jobs are named by what differs."""


class JobFailedError(BaseException):
    """Carries a job's error out of Hydra, which would print it in its own way."""

    def __init__(self, error: ArtifactGenError) -> None:
        super().__init__(str(error))
        self.error = error


def run_job(config: DictConfig) -> None:
    """Do what a configuration says.

    Raises:
        JobFailedError: the job of a single run failed.
        ArtifactGenError: a job of a sweep failed; it was reported, and the other jobs go on.
    """
    try:
        with forbid_exit("Code of the configuration", "the job was running", RunError):
            _run(config)
    except ArtifactGenError as error:
        if HydraConfig.get().mode == RunMode.RUN:
            raise JobFailedError(error) from error
        log_error(str(error))
        raise


def _run(config: DictConfig) -> None:
    refuse_launcher(str(HydraConfig.get().runtime.choices.get("hydra/launcher")))
    composed: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    composed["output_dir"] = str(_own_output_dir(Path(composed["output_dir"])))
    if composed["debug"] is True:
        show_tracebacks()
    settings, kinds = parse(composed)
    clock, import_from = Clock(), user_modules()
    sys.path += [folder for folder in import_from if folder not in sys.path]
    try:
        with clock("setup"):
            inputs = read_inputs(settings, kinds)
            scopes = plan(settings, inputs)
        _begin(Run(settings, inputs, _command(), composed, scopes, clock, import_from))
    except OSError as error:
        raise _explain_os_error(error) from error
    except MemoryError as error:
        raise RunError(
            f"There is not enough memory on this machine. {error}".strip()
            + "\nFree some, or take less of it: data.batch_size, data.num_workers, cluster.workers."
        ) from error


def _begin(run: Run) -> None:
    """Say what the run is about, and do what is missing of it."""
    for line in describe.inputs(run):
        log.info(line)
    # Before the right to write is looked at: what is complete may lie in an archive.
    if run.layout.state.is_dir() and not run.changes() and run.is_complete():
        log.info("Complete: nothing to do. %s", describe.complete(run))
        return
    data_root = getattr(run.inputs.source, "root", None)
    check_output(run.layout, data_root=Path(data_root) if data_root else None)
    from distributed.execute import execute  # torch and timm take seconds to import

    execute(run)


def user_modules() -> tuple[str, ...]:
    """Folders in which classes of the user's configuration are looked for.

    The folder given as `--config-dir`, and the one that it lies in: classes beside it.
    """
    given = [
        source.path.removeprefix("file://")
        for source in HydraConfig.get().runtime.config_sources
        if source.provider == "command-line"
    ]
    folders = [Path(path).absolute() for path in given]
    return tuple(str(place) for folder in folders for place in (folder.parent, folder))


def _command() -> str:
    return shlex.join(a for a in sys.argv if not a.startswith(SWEEP_NAMING))


def _own_output_dir(output_dir: Path) -> Path:
    """In a sweep, a folder for each job, named after what is swept."""
    swept = HydraConfig.get().job.override_dirname
    in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN and swept
    return output_dir / safe_name(swept) if in_sweep else output_dir


def refuse_launcher(launcher: str) -> None:
    """`ConfigError` for a launcher that the program cannot use yet."""
    if launcher.startswith("submitit"):
        raise ConfigError(
            f"hydra/launcher={launcher}: submitting from here is not available yet.\n"
            "Submit the same command with slurm/artifacts.sbatch, or run it inside an allocation."
        )


def _explain_os_error(error: OSError) -> RunError:
    if error.errno == errno.ENOSPC:
        return RunError(f"The disk is full: {error.filename or 'no space left'}. Free some space.")
    return RunError(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "))
