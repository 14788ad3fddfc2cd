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

from artifactgen.errors import ArtifactGenError, ConfigError, RunError
from artifactgen.store.layout import safe_name
from distributed.build import build
from distributed.console import log_error, show_tracebacks
from distributed.execute import execute
from distributed.run import Phases, Run, plan
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
        ArtifactGenError: a job of a sweep failed; it was told, and the other jobs go on.
    """
    try:
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
    phases = Phases()
    try:
        with phases("setup"):
            built = build(settings, kinds)
            scopes = plan(settings, built)
        execute(Run(settings, built, _command(), composed, scopes, phases))
    except OSError as error:
        raise _explain_os_error(error) from error


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
