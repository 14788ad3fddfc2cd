"""The script that sbatch gets, to the letter."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.workspace import CKPT, EXPERIMENT, Workspace, snapshot

from distributed.slurm.options import job_options
from distributed.slurm.submit import script

GOLDEN = Path(__file__).parent / "golden"
FOLDER = {"submitit_folder": "/scratch/logs/%j"}
FULL = {
    **FOLDER,
    "name": "heart maps",
    "nodes": 2,
    "gpus_per_node": 4,
    "cpus_per_task": 32,
    "mem_gb": 240,
    "time": "2-00:00:00",
    "signal_delay_s": 300,
    "partition": "gpu",
    "account": "heart",
    "qos": "low",
    "constraint": "a100&ib",
    "setup": ["module load cuda", "source ~/env.sh"],
    "additional_parameters": {"reservation": "maintenance"},
}
SUBMIT = ("hydra/launcher=submitit_slurm", "dry_run=true")


def golden(name: str) -> str:
    """A script, with this Python in it; the files end with a line break as editors want it."""
    text = (GOLDEN / f"{name}.sh").read_text()
    return text.removesuffix("\n").replace("PYTHON", shlex.quote(sys.executable))


@pytest.mark.parametrize(
    ("name", "given", "jobs"),
    [("one", FOLDER, 1), ("array_of_8", FOLDER, 8), ("full", FULL, 1)],
    ids=["one", "array_of_8", "full"],
)
def test_the_script_of_a_job(name: str, given: dict[str, Any], jobs: int) -> None:
    assert script(job_options(given), jobs=jobs) == golden(name)


def test_names_with_spaces_are_one_word_each() -> None:
    options = job_options({"submitit_folder": "/my scratch/%j", "python": "srun-python -X dev"})
    command = script(options, jobs=1).splitlines()[-1]
    words = shlex.split(command)
    assert words[-7:-1] == ["srun-python", "-X", "dev", "-u", "-m", "submitit.core._submit"]
    assert words[-1] == "/my scratch/%j"


@pytest.fixture
def no_slurm(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("empty")))


@pytest.mark.usefixtures("no_slurm")
@pytest.mark.parametrize(
    ("options", "name"), [((), "one"), (("cluster.jobs=8",), "array_of_8")], ids=str
)
def test_a_dry_run_prints_it_and_writes_nothing_at_all(
    workspace: Workspace, options: tuple[str, ...], name: str
) -> None:
    before = snapshot(workspace.root)
    outcome = workspace.run(EXPERIMENT, CKPT, *SUBMIT, *options)
    assert outcome.exit_code == 0, outcome.text
    expected = golden(name).replace("/scratch/logs", f"{workspace.root}/logs/slurm")
    assert f"The script of the job:\n{expected}\n" in outcome.text
    assert "dry_run: nothing was written, nothing submitted." in outcome.text
    assert snapshot(workspace.root) == before


@pytest.mark.usefixtures("no_slurm")
def test_settings_on_the_command_line(workspace: Workspace) -> None:
    changes = {
        "name": "'heart maps'",
        **{key: FULL[key] for key in ("nodes", "gpus_per_node", "cpus_per_task", "mem_gb")},
        **{key: FULL[key] for key in ("time", "signal_delay_s", "partition", "account", "qos")},
        "constraint": "'a100&ib'",
        "setup": "['module load cuda','source ~/env.sh']",
        "additional_parameters": "{reservation: maintenance}",
    }
    given = [f"hydra.launcher.{name}={value}" for name, value in changes.items()]
    outcome = workspace.run(EXPERIMENT, CKPT, *SUBMIT, *given)
    assert outcome.exit_code == 0, outcome.text
    expected = golden("full").replace("/scratch/logs", f"{workspace.root}/logs/slurm")
    assert expected in outcome.text


@pytest.mark.usefixtures("no_slurm")
def test_a_sweep_is_one_array(workspace: Workspace) -> None:
    outcome = workspace.run("-m", EXPERIMENT, *SUBMIT, "ckpt_path=a.ckpt,b.ckpt")
    assert outcome.exit_code == 0, outcome.text
    assert re.findall(r"#SBATCH --array=(\S+)", outcome.text) == ["0-1%2"]
    for name in ("a.ckpt", "b.ckpt"):
        assert f"my_experiment/ckpt_path-{name}" in outcome.text
    assert not workspace.output.exists()
