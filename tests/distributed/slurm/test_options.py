"""Settings of a job: by submitit's names, checked, and as sbatch gets them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from artifactgen.errors import ConfigError
from distributed.slurm.options import JobOptions, job_options, minutes

PLACE = {"submitit_folder": "logs/%j"}
ALWAYS = {"submitit_folder", "mem_gb", "max_num_timeout", "python", "setup"}
"""They are not options of sbatch, or not by this name."""
CORES = "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK"


def options(**given: Any) -> JobOptions:
    return job_options({**PLACE, **given})


def sbatch(**given: Any) -> dict[str, Any]:
    return options(**given).sbatch_parameters()


@pytest.mark.parametrize(
    ("setting", "value", "name"),
    [
        ("name", "mine", "job_name"),
        ("nodes", 4, "nodes"),
        ("gpus_per_node", 4, "gpus_per_node"),
        ("cpus_per_task", 16, "cpus_per_task"),
        ("tasks_per_node", 1, "ntasks_per_node"),
        ("timeout_min", 90, "time"),
        ("signal_delay_s", 300, "signal_delay_s"),
        ("partition", "gpu", "partition"),
        ("account", "heart", "account"),
        ("qos", "low", "qos"),
        ("constraint", "a100&ib", "constraint"),
        ("exclude", "n[3-4]", "exclude"),
        ("gres", "gpu:a100:4", "gres"),
        ("gpus_per_task", 4, "gpus_per_task"),
        ("cpus_per_gpu", 8, "cpus_per_gpu"),
        ("mem_per_gpu", "32GB", "mem_per_gpu"),
        ("mem_per_cpu", "4GB", "mem_per_cpu"),
        ("comment", "two words", "comment"),
        ("array_parallelism", 3, "array_parallelism"),
        ("stderr_to_stdout", False, "stderr_to_stdout"),
    ],
)
def test_every_setting_reaches_sbatch(setting: str, value: Any, name: str) -> None:
    assert sbatch(**{setting: value})[name] == value


def test_no_setting_is_left_out_of_these_tests() -> None:
    [mark] = test_every_setting_reaches_sbatch.pytestmark  # type: ignore[attr-defined]
    tested = {setting for setting, _, _ in mark.args[1]}
    assert {field.name for field in fields(JobOptions)} == {
        *tested,
        *ALWAYS,
        "additional_parameters",
    }


@pytest.mark.parametrize("setting", ["name", "partition", "account", "qos", "comment"])
def test_a_name_may_be_a_number(setting: str) -> None:
    assert getattr(options(**{setting: 12345}), setting) == "12345"
    with pytest.raises(ConfigError, match=rf"hydra\.launcher\.{setting}=\[1\]: "):
        options(**{setting: [1]})


def test_what_is_not_asked_for_is_left_to_the_site() -> None:
    assert set(sbatch()) == {
        *("job_name", "nodes", "cpus_per_task", "ntasks_per_node", "time", "signal_delay_s"),
        *("array_parallelism", "stderr_to_stdout", "setup", "srun_args", "additional_parameters"),
        "wckey",
    }
    assert sbatch()["wckey"] is None, "submitit has one of its own"


@pytest.mark.parametrize(("gb", "mem"), [(4, "4096MB"), (0.5, "512MB"), (1.5, "1536MB")])
def test_memory_may_be_a_fraction(gb: float, mem: str) -> None:
    assert sbatch(mem_gb=gb)["mem"] == mem


def test_lines_of_the_set_up_come_after_our_own() -> None:
    lines = ["module load cuda", "source env.sh"]
    assert sbatch(setup=lines)["setup"] == [CORES, *lines]


def test_cores_for_each_gpu_take_the_place_of_those_for_the_task() -> None:
    """sbatch refuses both; and srun, where the variable is set and empty."""
    given = sbatch(cpus_per_gpu=4, gpus_per_node=2)
    assert "cpus_per_task" not in given
    assert given["setup"] == []


def test_other_options_of_sbatch_win_over_ours() -> None:
    assert sbatch()["additional_parameters"] == {"requeue": True}
    for never in ({"requeue": False}, {"no-requeue": True}):
        given = {"reservation": "maintenance", **never}
        expected = {"reservation": "maintenance", "no-requeue": True}
        assert sbatch(additional_parameters=given)["additional_parameters"] == expected


@pytest.mark.parametrize("name", ["array", "output", "signal", "ntasks-per-node", "job_name"])
def test_options_of_sbatch_that_are_ours_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"additional_parameters: {name} is set by "):
        sbatch(additional_parameters={name: "1"})


def test_the_folder_of_logs_does_not_depend_on_where_a_job_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/heart")
    assert options().submitit_folder == tmp_path / "logs" / "%j"
    assert options(submitit_folder="~/logs").submitit_folder == Path("/home/heart/logs")


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (90, 90),
        ("90", 90),
        ("90:00", 90),
        ("90:01", 91),
        ("3:30", 4),
        ("1:30:00", 90),
        ("01:30:00", 90),
        ("1:30:30", 91),
        ("72:00:00", 72 * 60),
        ("2-0", 48 * 60),
        ("2-12", 60 * 60),
        ("2-12:30", 60 * 60 + 30),
        ("2-00:00:00", 48 * 60),
        ("0-00:00:01", 1),
    ],
)
def test_a_time_limit_in_every_form_of_sbatch(time: Any, expected: int) -> None:
    assert minutes(time) == expected
    assert options(time=time, signal_delay_s=0).timeout_min == expected


@pytest.mark.parametrize(
    "time", ["", "soon", "1h", "-5", "1:2:3:4", "2-", "1-2-3", 1.5, True, "UNLIMITED", [90]]
)
def test_what_is_no_time_limit_is_refused(time: Any) -> None:
    with pytest.raises(ConfigError, match=r"hydra\.launcher\.time=.*: give minutes, or hours"):
        options(time=time)


def test_no_time_limit_given_is_the_default() -> None:
    assert options(time=None) == options()


def test_an_unknown_setting_is_refused_with_all_that_there_are() -> None:
    with pytest.raises(ConfigError) as error:
        options(gpus=4)
    first, names, advice = str(error.value).splitlines()
    assert first == "hydra.launcher.gpus: there is no such setting of a job. There are:"
    assert names.removesuffix(".").split(", ") == [field.name for field in fields(JobOptions)]
    assert "'hydra.launcher.additional_parameters={reservation: maintenance}'" in advice


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"nodes": 0}, "nodes=0: must be 1 or more"),
        ({"nodes": "many"}, "nodes=many: "),
        ({"cpus_per_task": 0}, "cpus_per_task=0: must be 1 or more"),
        ({"array_parallelism": 0}, "array_parallelism=0: must be 1 or more"),
        ({"timeout_min": 0}, "timeout_min=0: must be 1 or more"),
        ({"time": 0}, "timeout_min=0: must be 1 or more"),
        ({"gpus_per_node": -1}, "gpus_per_node=-1: must be 0 or more"),
        ({"max_num_timeout": -1}, "max_num_timeout=-1: must be 0 or more"),
        ({"signal_delay_s": -1}, "signal_delay_s=-1: must be 0 or more"),
        ({"signal_delay_s": 600, "timeout_min": 10}, "signal_delay_s=600: must be less than time"),
        (
            {"signal_delay_s": 541},
            "signal_delay_s=541: must be less than timeout_min=240 minutes",
        ),
        ({"mem_gb": 0}, "mem_gb=0.0: must be more than 0"),
        ({"tasks_per_node": 4}, "tasks_per_node=4: must be 1: one process owns all GPUs"),
        ({"setup": "module load cuda"}, "setup=module load cuda: "),
    ],
    ids=str,
)
def test_what_is_out_of_range_is_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as error:
        options(**given)
    assert str(error.value).startswith(f"hydra.launcher.{told}")


@pytest.mark.parametrize(
    ("given", "asks"),
    [
        ({}, False),
        ({"gpus_per_node": 0}, False),
        ({"gres": "license:1"}, False),
        ({"gpus_per_node": 1}, True),
        ({"gpus_per_task": 1}, True),
        ({"gres": "gpu:a100:4"}, True),
        ({"additional_parameters": {"gpus": 4}}, True),
        ({"additional_parameters": {"tres-per-task": "gres/gpu:1"}}, True),
        ({"additional_parameters": {"reservation": "heart"}}, False),
    ],
    ids=str,
)
def test_whether_a_job_gets_gpus(given: dict[str, Any], asks: bool) -> None:
    assert options(**given).asks_for_gpus is asks
