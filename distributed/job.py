"""What Hydra calls with a composed configuration: a run here, or one that is submitted."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, RunMode, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from artifactgen.errors import ArtifactGenError, ConfigError
from artifactgen.store.layout import safe_name
from distributed.console import log_error
from distributed.perform import perform
from distributed.request import Request

SWEEP_NAMING = "hydra.job.config.override_dirname.exclude_keys="
"""The override that the command line adds to a sweep, so that jobs are named by what differs."""
LAUNCHER = "submitit_slurm"
PLUGIN = "hydra_plugins.artifactgen"
"""Hydra takes launchers of the package `hydra_plugins` alone, also where one registers them."""


class JobFailedError(BaseException):
    """Carries a job's error out of Hydra, which would print it in its own way."""

    def __init__(self, error: ArtifactGenError) -> None:
        super().__init__(str(error))
        self.error = error


class SubmittedEnd(BaseException):
    """Carries the exit code of what was submitted out of Hydra."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


def run_job(config: DictConfig, command: str) -> Request | None:
    """Do what a configuration says; or submit it, where a launcher was chosen that does.

    Args:
        config: composed.
        command: what was typed.

    Returns:
        Of a sweep that is submitted, what this job of it asks for.

    Raises:
        JobFailedError: the job of a single run failed.
        ArtifactGenError: a job of a sweep failed; it was reported, and the other jobs go on.
        SubmittedEnd: it was submitted.
    """
    hydra = HydraConfig.get()
    is_single = hydra.mode == RunMode.RUN
    try:
        launcher = str(hydra.runtime.choices.get("hydra/launcher"))
        refuse_launcher(launcher)
        request = request_of(config, command)
        if launcher == LAUNCHER and not is_single:
            return request
        if launcher == LAUNCHER:
            raise _submit([request], hydra.launcher)
        perform(request)
    except ArtifactGenError as error:
        if is_single:
            raise JobFailedError(error) from error
        log_error(str(error))
        raise
    return None


def request_of(config: DictConfig, command: str) -> Request:
    """What a composed configuration asks for; Hydra's own part of it must be set."""
    composed: dict[str, Any] = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    composed["output_dir"] = str(_own_output_dir(Path(composed["output_dir"])))
    return Request(composed, command, user_modules())


class SlurmLauncher(Launcher):
    """Submits all jobs of a sweep as one array."""

    __module__ = PLUGIN

    def __init__(self, **options: Any) -> None:
        self._options = options

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        self._context, self._task, self._config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Submit what a sweep amounts to.

        Raises:
            JobFailedError: one of the jobs is wrong; nothing was submitted.
            SubmittedEnd: they were submitted.
        """
        if self._config.hydra.sweeper.get("max_batch_size") is not None:
            raise JobFailedError(
                ConfigError(
                    "hydra.sweeper.max_batch_size: a sweep is submitted as one array. How many of "
                    "its jobs run at once says hydra.launcher.array_parallelism."
                )
            )
        loader = self._context.config_loader
        requests = []
        for overrides in job_overrides:
            config = loader.load_sweep_config(self._config, list(overrides))
            HydraConfig.instance().set_config(config)
            with open_dict(config):
                del config["hydra"]
            requests.append(self._task(config))
        try:
            raise _submit(requests, self._options)
        except ArtifactGenError as error:
            raise JobFailedError(error) from error


def register_launcher(settings: Mapping[str, Any]) -> None:
    """Make ours what `hydra/launcher=submitit_slurm` chooses, also beside the plugin of that name.

    Args:
        settings: with their defaults. As a file below `hydra/launcher` they would be checked
            against that plugin's schema.
    """
    sys.modules[PLUGIN] = sys.modules[__name__]
    Plugins.instance().register(SlurmLauncher)  # the first use imports every plugin
    ConfigStore.instance().store(group="hydra/launcher", name=LAUNCHER, node=dict(settings))


def _submit(requests: Sequence[Request], options: Any) -> SubmittedEnd:
    from distributed.slurm.submit import submit  # submitit need not be imported for a run here

    if OmegaConf.is_config(options):
        options = OmegaConf.to_container(options, resolve=True)
    return SubmittedEnd(submit(requests, options))


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


def _own_output_dir(output_dir: Path) -> Path:
    """In a sweep, a folder for each job, named after what is swept."""
    swept = HydraConfig.get().job.override_dirname
    in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN and swept
    return output_dir / safe_name(swept) if in_sweep else output_dir


def refuse_launcher(launcher: str) -> None:
    """`ConfigError` for a launcher that the program does not know."""
    if launcher not in ("basic", LAUNCHER):
        raise ConfigError(
            f"hydra/launcher={launcher}: runs are submitted by hydra/launcher={LAUNCHER}; without "
            "a launcher they are done here."
        )
