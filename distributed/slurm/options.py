"""Settings of a job by submitit's names: `hydra.launcher` in the configuration."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from artifactgen.errors import ConfigError
from distributed.instantiate import instantiate

SECTION = "hydra.launcher"
_CORES = "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK"
"""From 22.05 to 23.11, srun does not take this over from sbatch."""
_TIMES = (
    re.compile(r"(?P<minutes>\d+)(:(?P<seconds>\d+))?"),
    re.compile(r"(?P<hours>\d+):(?P<minutes>\d+):(?P<seconds>\d+)"),
    re.compile(r"(?P<days>\d+)-(?P<hours>\d+)(:(?P<minutes>\d+)(:(?P<seconds>\d+))?)?"),
)
"""The forms of `--time` of sbatch(1)."""
_AS_SBATCH = {
    "name": "job_name",
    "timeout_min": "time",
    "tasks_per_node": "ntasks_per_node",
}
_LATEST_S = 540
"""A warning that comes earlier is taken for a preemption, see `requeue`."""
_NAMES = ("name", "partition", "account", "qos", "constraint", "comment")
"""Settings that are texts, and look like numbers at some sites: `account=12345`."""
_SET_BY = {
    "array": "the program itself: -m, or cluster.jobs",
    "output": f"{SECTION}.submitit_folder",
    "error": f"{SECTION}.submitit_folder",
    "open_mode": "the program itself",
    "signal": f"{SECTION}.signal_delay_s",
    "time": f"{SECTION}.timeout_min",
    "job_name": f"{SECTION}.name",
    "mem": f"{SECTION}.mem_gb",
    "ntasks": f"{SECTION}.nodes",
    "ntasks_per_node": f"{SECTION}.nodes",
    **{name: f"{SECTION}.{name}" for name in ("nodes", "cpus_per_task", "gpus_per_node")},
}
"""Options of sbatch that a setting of ours, or the program, gives."""
_OURS = ("submitit_folder", "mem_gb", "max_num_timeout", "python", "setup", "additional_parameters")


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """What a job asks for, and how it is started."""

    submitit_folder: Path
    """Of logs and scripts; `%j` stands for the id of the job."""
    name: str = "artifactgen"
    nodes: int = 1
    gpus_per_node: int | None = None
    cpus_per_task: int = 8
    tasks_per_node: int = 1
    mem_gb: float | None = None
    timeout_min: int = 240
    signal_delay_s: int = 120
    max_num_timeout: int = 100
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    gres: str | None = None
    gpus_per_task: int | None = None
    cpus_per_gpu: int | None = None
    mem_per_gpu: str | None = None
    mem_per_cpu: str | None = None
    comment: str | None = None
    array_parallelism: int = 256
    setup: tuple[str, ...] | None = None
    additional_parameters: dict[str, Any] = field(default_factory=dict)
    python: str | None = None
    stderr_to_stdout: bool = True

    def __post_init__(self) -> None:
        for name in ("nodes", "cpus_per_task", "timeout_min", "array_parallelism"):
            self._require(name, getattr(self, name) >= 1, "must be 1 or more")
        for name in ("gpus_per_node", "max_num_timeout", "signal_delay_s"):
            self._require(name, (getattr(self, name) or 0) >= 0, "must be 0 or more")
        self._require("mem_gb", self.mem_gb is None or self.mem_gb > 0, "must be more than 0")
        one = "must be 1: one process owns all GPUs of its node, and starts a worker for each"
        self._require("tasks_per_node", self.tasks_per_node == 1, one)
        late = f"must be less than timeout_min={self.timeout_min} minutes, and at most {_LATEST_S}"
        earliest = min(60 * self.timeout_min - 1, _LATEST_S)
        self._require("signal_delay_s", self.signal_delay_s <= earliest, late)
        for name in self.additional_parameters:
            self._refuse_ours(name)

    @property
    def log_dir(self) -> Path:
        """The nearest folder above that does not depend on a job's id."""
        parts = self.submitit_folder.parts
        return Path(*itertools.takewhile(lambda part: "%" not in part, parts))

    def _refuse_ours(self, name: str) -> None:
        """`ConfigError` for an option of sbatch that is set by something else."""
        setting = _SET_BY.get(name.replace("-", "_"))
        if setting:
            raise ConfigError(
                f"{SECTION}.additional_parameters: {name} is set by {setting}. Leave it out."
            )

    def _require(self, name: str, holds: bool, otherwise: str) -> None:
        if not holds:
            raise ConfigError(f"{SECTION}.{name}={getattr(self, name)}: {otherwise}.")

    @property
    def asks_for_gpus(self) -> bool:
        """Whether the job gets GPUs, as far as its settings tell."""
        asked = {**self.additional_parameters, "gres": self.gres or ""}
        more = any("gpu" in f"{name} {value}".lower() for name, value in asked.items())
        return bool(self.gpus_per_node or self.gpus_per_task) or more

    def sbatch_parameters(self) -> dict[str, Any]:
        """The settings as `submitit.SlurmExecutor.update_parameters` takes them."""
        own = {name: getattr(self, name) for name in (f.name for f in fields(self))}
        given = {
            _AS_SBATCH.get(name, name): value
            for name, value in own.items()
            if value is not None and name not in _OURS
        }
        cores = [_CORES]
        if self.cpus_per_gpu is not None:  # sbatch takes one of the two
            del given["cpus_per_task"]
            cores = []
        if self.mem_gb is not None:
            given["mem"] = f"{round(self.mem_gb * 1024)}MB"
        return {
            **given,
            "wckey": None,  # submitit's own, which some sites refuse
            "setup": [*cores, *(self.setup or ())],
            "srun_args": ["--kill-on-bad-exit=1"],
            "additional_parameters": self._more(),
        }

    def _more(self) -> dict[str, Any]:
        """Any other options; a node that is lost costs what it had at work, and not the run."""
        more = {"requeue": True, **self.additional_parameters}
        if more["requeue"] and not {"no-requeue", "no_requeue"} & more.keys():
            return more
        return {**{k: v for k, v in more.items() if k != "requeue"}, "no-requeue": True}


def job_options(given: Mapping[str, Any]) -> JobOptions:
    """Check the settings of a launcher.

    Args:
        given: by name; `time` is translated to `timeout_min`.

    Raises:
        ConfigError: a setting that there is not, with all that there are; or one out of range.
    """
    options = {name: _named(name, value) for name, value in given.items() if name != "_target_"}
    if options.get("time") is not None:
        options["timeout_min"] = minutes(options["time"])
    options.pop("time", None)
    known = [option.name for option in fields(JobOptions)]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise ConfigError(
            f"{SECTION}.{unknown[0]}: there is no such setting of a job. There are:\n"
            f"{', '.join(known)}.\n"
            "Any other option of sbatch goes into additional_parameters, as in "
            f"'{SECTION}.additional_parameters={{reservation: maintenance}}'."
        )
    if "submitit_folder" in options:
        options["submitit_folder"] = Path(options["submitit_folder"]).expanduser().absolute()
    where = f"{JobOptions.__module__}.{JobOptions.__qualname__}"
    return instantiate(where, options, section=SECTION, base=JobOptions)


def _named(setting: str, value: Any) -> Any:
    return str(value) if setting in _NAMES and type(value) is int else value


def minutes(time: Any) -> int:
    """Minutes of a time limit as sbatch takes it: `90`, `90:00`, `1:30:00`, `2-00:00:00`.

    Raises:
        ConfigError: it is none.
    """
    found = next((match for form in _TIMES if (match := form.fullmatch(str(time)))), None)
    if found is None:
        raise ConfigError(f"{SECTION}.time={time}: give minutes, or hours:minutes:seconds.")
    given = {unit: int(number or 0) for unit, number in found.groupdict().items()}
    hours = 24 * given.get("days", 0) + given.get("hours", 0)
    return 60 * hours + given["minutes"] + (given["seconds"] > 0)
