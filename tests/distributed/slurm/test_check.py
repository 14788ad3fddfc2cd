"""What is wrong is found before anything is submitted, also where there is no SLURM."""

from __future__ import annotations

import pytest
from helpers.workspace import CKPT, EXPERIMENT, Outcome, Workspace, snapshot, write_checkpoint

from artifactgen.store.layout import Layout
from distributed.slurm.submissions import Submission, remember

SUBMIT = "hydra/launcher=submitit_slurm"
RUN = f"{EXPERIMENT} {CKPT} {SUBMIT}"
NODES = "hydra.launcher.nodes=2"


@pytest.fixture(autouse=True)
def no_slurm(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path_factory.mktemp("empty")))
    for name in ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_CONF"):
        monkeypatch.delenv(name, raising=False)


def assert_refused(outcome: Outcome, told: str) -> None:
    assert outcome.exit_code == 2, outcome.text
    assert told in outcome.text, outcome.text
    assert "Traceback" not in outcome.text
    assert "Submitted" not in outcome.text


@pytest.mark.parametrize(
    ("command", "told"),
    [
        # What is wrong whatever does the run.
        (f"{RUN} data.batch_sise=3", "data.batch_sise: there is no such option. Did you mean"),
        (f"{RUN} data.batch_size=0", "data.batch_size=0: input should be greater than 0."),
        (f"{RUN} ckpt_path=nope.ckpt", "ckpt_path=nope.ckpt: no such file"),
        (f"{RUN} data.path=nope.h5", "data.path=nope.h5"),
        (f"{RUN} splits=[trian]", "splits: the data set has no trian. Did you mean train?"),
        (f"{RUN} record_id=val_9", "record_id=val_9: there is no such record"),
        (f"{RUN} output_dir=a.ckpt", "a.ckpt is a file. Give a directory."),
        (f"{RUN} output_dir=path", "is not empty, and not an output directory of this program"),
        (f"{RUN} +model.bacbone=x", "model.bacbone: there is no such option. Did you mean back"),
        # What only the checkpoint tells.
        (f"{RUN} model.backbone=resnet18", "does not fit resnet18"),
        (f"{RUN} model.num_classes=4", "num_classes"),
        (f"{RUN} target_classes=[cta]", "there is no class 'cta' among 3. Did you mean cat?"),
        # What only a job can be wrong in.
        (f"{RUN} hydra.launcher.ndoes=2", "hydra.launcher.ndoes: there is no such setting of a j"),
        (f"{RUN} hydra.launcher.nodes=0", "hydra.launcher.nodes=0: must be 1 or more."),
        (f"{RUN} hydra.launcher.time=soon", "hydra.launcher.time=soon: give minutes"),
        (f"{RUN} hydra.launcher.tasks_per_node=2", "hydra.launcher.tasks_per_node=2: must be 1: "),
        (f"{RUN} accelerator=gpu", "the job asks for none. Add hydra.launcher.gpus_per_node=1."),
        (f"{RUN} precision=16-mixed", "precision=16-mixed needs a GPU"),
        (f"{RUN} {NODES} cluster=inline", "cluster=inline: what is submitted runs with cluster=sl"),
        (f"{RUN} cluster=local", "cluster=local: what is submitted runs with cluster=slurm, which"),
        (f"{RUN} cluster.jobs=0", "cluster.jobs=0, cluster.job=None: jobs must be 1 or more"),
        (f"{RUN} cluster.jobs=8 record_id=val_001", "record_id: single records are no work for"),
        (f"{RUN} cluster.jobs=8 retry_failures=true", "retry_failures=true: what failed is done"),
    ],
)
def test_what_is_wrong_is_found_before_it_is_submitted(
    workspace: Workspace, command: str, told: str
) -> None:
    before = snapshot(workspace.root)
    assert_refused(workspace.run(*command.split()), told)
    assert snapshot(workspace.root) == before


def test_without_a_slurm_it_says_where_to_go(workspace: Workspace) -> None:
    before = snapshot(workspace.root)
    outcome = workspace.run(*RUN.split())
    assert_refused(outcome, "There is no SLURM on this machine (srun is not found). Submit from a")
    assert "dry_run=true prints the script here as well." in outcome.text
    assert snapshot(workspace.root) == before


def test_other_settings_are_refused_with_the_difference(finished: Workspace) -> None:
    before = snapshot(finished.output)
    outcome = finished.run(*RUN.split(), "pooling=mean")
    assert_refused(outcome, '  artifacts.embeddings.pooling: "auto" → "mean"\n')
    assert snapshot(finished.output) == before


def test_what_is_complete_is_not_submitted(finished: Workspace) -> None:
    before = snapshot(finished.root)
    outcome = finished.run(*RUN.split())
    assert outcome.exit_code == 0, outcome.text
    assert "Complete: nothing to do." in outcome.text
    assert snapshot(finished.root) == before


def test_a_classifier_that_is_not_in_the_checkpoint(workspace: Workspace) -> None:
    write_checkpoint(workspace.root / "headless.ckpt", classes=0)
    before = snapshot(workspace.root)
    outcome = workspace.run(EXPERIMENT, "ckpt_path=headless.ckpt", SUBMIT)
    assert_refused(outcome, "GradCAM needs a classifier")
    assert snapshot(workspace.root) == before


def test_a_job_of_a_sweep_that_is_wrong_keeps_all_from_being_submitted(
    workspace: Workspace,
) -> None:
    outcome = workspace.run("-m", EXPERIMENT, SUBMIT, "ckpt_path=a.ckpt,nope.ckpt", "dry_run=true")
    assert_refused(outcome, "ckpt_path=nope.ckpt: no such file")
    assert "The script of the job" not in outcome.text
    assert not (workspace.root / "artifacts").exists()


def test_a_job_that_slurm_no_longer_knows_is_no_obstacle(workspace: Workspace) -> None:
    """Nor is one that cannot be asked after, as here."""
    layout = Layout(workspace.output)
    layout.jobs.mkdir(parents=True)
    remember(layout, Submission("12", "/logs/12/12_0_log.out", "2026-01-01T00:00:00", "command"))
    outcome = workspace.run(*RUN.split(), "dry_run=true")
    assert outcome.exit_code == 0, outcome.text
