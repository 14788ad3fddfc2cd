"""Wrong use: exit code 2, a few lines that say what to do, no traceback, nothing written."""

from __future__ import annotations

from pathlib import Path

import h5py
import pytest
from helpers.workspace import CKPT, EXPERIMENT, Outcome, Workspace, snapshot, write_checkpoint

from artifactgen import __version__
from distributed.launch import run_command

RUN = f"{EXPERIMENT} {CKPT}"
REPORTED = (
    *("Data:", "Model:", "Output:", "Checkpoint:", "Artifact:", "Pixels:", "Accuracy", "WARNING:"),
)
"""How lines begin that are no complaint."""


def assert_refused(outcome: Outcome, *told: str) -> None:
    assert outcome.exit_code == 2, outcome.text
    assert "Traceback" not in outcome.text
    complaint = [line for line in outcome.lines if not line[20:].startswith(REPORTED)]
    assert len(complaint) <= 10, outcome.text
    for part in told:
        assert part in outcome.text, outcome.text


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (EXPERIMENT, "ckpt_path is not set: which trained model?\nAdd ckpt_path="),
        (CKPT, "experiment is not set. Known: embeddings/default, embeddings/demo, embeddings/my_"),
        (
            f"{CKPT} experiment=embeddings/my_experimnt",
            "experiment=embeddings/my_experimnt: there is no such configuration. "
            "Did you mean embeddings/my_experiment",
        ),
        (f"{RUN} data=hdf", "data=hdf: there is no such configuration. Did you mean hdf5?"),
        (f"{RUN} model=mae", "model=mae: there is no such configuration. "),
        (f"{RUN} ckpt_path=nope.ckpt", "ckpt_path=nope.ckpt: no such file"),
        (f"{RUN} data.path=nope.h5", "data.path=nope.h5"),
        ("experiment=embeddings/default " + CKPT, "No ACDC release at data/acdc: set data.root"),
        (f"{RUN} model.backbone=resnet18", "does not fit resnet18"),
        (f"{RUN} model.backbone=tset_vit", "timm has no such model. Did you mean test_vit"),
        (
            f"{RUN} data.batch_sise=3",
            "data.batch_sise: there is no such option. Did you mean",
        ),
        (f"{RUN} recordid=3", "recordid: there is no such option. Did you mean record_id"),
        (f"{RUN} +data.pth=3", "data.pth: there is no such option. Did you mean path?"),
        (
            f"{RUN} +model.bacbone=x",
            "model.bacbone: there is no such option. Did you mean back",
        ),
        (f"{RUN} +gradcam.layr=x", "gradcam.layr: there is no such option. Did you mean layer"),
        (f"{RUN} data.batch_size=-1", "data.batch_size=-1: input should be greater than 0."),
        (f"{RUN} data.batch_size=many", "data.batch_size=many: input should be a valid integer"),
        (f"{RUN} data.num_workers=0", "data.num_workers=0: input should be greater than 0."),
        (f"{RUN} max_failures=2", "max_failures=2: input should be less than or equal to 1."),
        (f"{RUN} limit=0", "limit=0: input should be greater than 0."),
        (f"{RUN} splits=[]", "splits=[]: "),
        (f"{RUN} splits=[trian]", "splits: the data set has no trian. Did you mean train?"),
        (f"{RUN} splits=[../x]", "splits.0=../x: "),
        (
            f"{RUN} record_id=trian_001",
            "record_id=trian_001: there is no such record in train",
        ),
        (f"{RUN} record_id=1e5", "record_id=100000.0: "),
        (f"{RUN} target_classes=[cta]", "there is no class 'cta' among 3. Did you mean cat?"),
        (f"{RUN} target_classes=[3]", "there is no class 3 among 3"),
        (f"{RUN} gradcam.layer=blocks.9", "gradcam.layer"),
        (f"{RUN} attention.layers=[9]", "attention.layers"),
        (f"{RUN} pooling=clss", "pooling=clss: input should be 'auto', 'cls'"),
        (f"{RUN} accelerator=tpu", "accelerator=tpu: input should be 'auto', 'cpu' or 'gpu'."),
        (f"{RUN} precision=16-mixed accelerator=cpu", "precision=16-mixed needs a GPU"),
        (
            f"{RUN} generate_gradcam=perhaps",
            "generate_gradcam=perhaps: input should be a valid",
        ),
        (
            f"{RUN} generate_embeddings=false generate_gradcam=false generate_attention=false",
            "Nothing to generate: every kind is off. Switch one on: generate_embeddings=true",
        ),
        (f"{RUN} data.image_size=60", "data.image_size=[60, 60]: not a multiple"),
        (f"{RUN} cluster=inline cluster.workers=2", "cluster.workers=2: in one process there is"),
        (f"{RUN} cluster=dask", "cluster=dask: there is no such configuration."),
        (f"{RUN} hydra/launcher=joblib", "runs are submitted by hydra/launcher=submitit_slurm;"),
        (f"{RUN} -m hydra/launcher=joblib", "runs are submitted by hydra/launcher=submitit_slurm;"),
        (f"{RUN} hydra.launcher.nodes=2", "hydra.launcher.nodes=2 is for jobs that are submitted:"),
        (
            f"{RUN} launcher.nodes=2",
            "launcher.nodes: there is no such option. Did you mean hydra",
        ),
        (f"{RUN} cluster=slurm", "cluster=slurm runs inside a job: submit this command with hydra"),
        (f"{RUN} output_dir=a.ckpt", "a.ckpt is a file. Give a directory."),
        (f"{RUN} output_dir=a.ckpt/x", "a.ckpt, is a file. Give a directory."),
        (f"{RUN} output_dir=/proc/artifacts", "output_dir=/proc/artifacts cannot be made: "),
        (f"{RUN} output_dir=path", "is not empty, and not an output directory of this program"),
        (f"{RUN} ckpt_path=a.ckpt,b.ckpt", "To sweep over it, add --multirun"),
        (f"{RUN} nonsense", "nonsense"),
        (f"{RUN} --nonsense", "unrecognized arguments: --nonsense"),
    ],
)
def test_wrong_use_is_refused(workspace: Workspace, command: str, told: str) -> None:
    before = snapshot(workspace.root)
    outcome = workspace.run(*command.split())
    assert_refused(outcome, told)
    assert snapshot(workspace.root) == before


def test_a_gpu_that_there_is_not(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    import torch

    if torch.cuda.is_available():
        pytest.skip("this process has its GPUs already")
    before = snapshot(workspace.root)
    assert_refused(workspace.run(*RUN.split(), "accelerator=gpu"), "accelerator=gpu, but torch")
    assert snapshot(workspace.root) == before


def test_an_output_dir_inside_the_data(workspace: Workspace, shared: Path) -> None:
    root = shared / "acdc"
    before = snapshot(root)
    outcome = workspace.run(
        "experiment=embeddings/default",
        CKPT,
        *("model.backbone=test_vit", "data.image_size=64", "model.num_classes=3"),
        *(f"data.root={root}", f"output_dir={root / 'training' / 'out'}"),
    )
    assert_refused(outcome, "lies inside the data set")
    assert snapshot(root) == before


def test_other_settings_are_refused_with_the_difference(finished: Workspace) -> None:
    before = snapshot(finished.output)
    outcome = finished.run(*RUN.split(), "pooling=mean", "target_classes=[0]")
    assert_refused(
        outcome,
        "holds artifacts that were made with other settings:",
        '  artifacts.embeddings.pooling: "auto" → "mean"\n',
        "  artifacts.gradcam.target_classes: null → [0]\n",
        "Give another output_dir, or add overwrite=true",
    )
    other = finished.run(EXPERIMENT, "ckpt_path=b.ckpt", "dry_run=true")
    assert_refused(other, "  checkpoint_sha256: ")
    assert snapshot(finished.output) == before


def test_overwrite_for_one_record_would_cost_all_others(finished: Workspace) -> None:
    before = snapshot(finished.output)
    options = ("pooling=mean", "record_id=val_001", "overwrite=true")
    outcome = finished.run(*RUN.split(), *options)
    assert_refused(outcome, "overwrite=true with record_id would remove the artifacts of all other")
    assert snapshot(finished.output) == before


def test_gradcam_without_a_classifier_stops_before_any_work(
    workspace: Workspace, tmp_path: Path
) -> None:
    write_checkpoint(tmp_path / "headless.ckpt", classes=0)
    before = snapshot(workspace.root)
    outcome = workspace.run(EXPERIMENT, "ckpt_path=headless.ckpt")
    assert_refused(outcome, "GradCAM needs a classifier", "Set generate_gradcam=false")
    assert snapshot(workspace.root) == before
    works = workspace.run(
        EXPERIMENT, "ckpt_path=headless.ckpt", "generate_gradcam=false", "limit=1"
    )
    assert works.exit_code == 0, works.text


def test_attention_of_a_network_without_it_is_skipped_and_said(
    workspace: Workspace, tmp_path: Path
) -> None:
    write_checkpoint(tmp_path / "cnn.ckpt", backbone="resnet18")
    outcome = workspace.run(
        EXPERIMENT, "ckpt_path=cnn.ckpt", "model.backbone=resnet18", "limit=1", "splits=[val]"
    )
    assert outcome.exit_code == 0, outcome.text
    assert "Artifact: attention SKIPPED: " in outcome.text
    assert (workspace.output / "gradcam" / "val_000" / "class_0.png").exists()
    assert not (workspace.output / "attention_maps").exists()
    assert "| attention | " in (workspace.output / "summary.md").read_text()


def test_a_broken_data_file(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "text.h5").write_text("<html>")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["pixels"] = [[0.0]]
    before = snapshot(workspace.root)
    assert_refused(workspace.run(*RUN.split(), "data.path=text.h5"), "text.h5")
    assert_refused(workspace.run(*RUN.split(), "data.path=other.h5"), "pixels")
    assert snapshot(workspace.root) == before


def test_an_experiment_that_starts_from_what_there_is_not(
    workspace: Workspace, tmp_path: Path
) -> None:
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("# @package _global_\ndefaults: [embeddings/defualt]\n")
    outcome = Workspace(workspace.root, tmp_path / "conf").run("experiment=mine", CKPT)
    assert_refused(outcome, "In 'experiment/mine': ", "Did you mean embeddings/default")


def test_debug_gives_the_traceback(workspace: Workspace) -> None:
    outcome = workspace.run(*RUN.split(), "debug=true", "data.batch_size=-1")
    assert outcome.exit_code == 2
    assert "data.batch_size=-1: input should be greater than 0." in outcome.text
    assert "Traceback (most recent call last)" in outcome.text
    assert 'distributed/settings.py", line' in outcome.text
    assert "Traceback" not in workspace.run(*RUN.split(), "data.batch_size=-1").text


def test_help_and_version_need_no_experiment(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["--version"]) == 0
    assert capsys.readouterr().out == f"artifactgen {__version__}\n"
    assert run_command(["--help"]) == 0
    text = capsys.readouterr().out
    assert "record_id: null" in text
    assert "Only these records" in text


def test_a_model_that_can_give_nothing_of_what_is_asked_for(workspace: Workspace) -> None:
    write_checkpoint(workspace.root / "cnn.ckpt", backbone="resnet10t")
    outcome = workspace.run(
        EXPERIMENT,
        "ckpt_path=cnn.ckpt",
        "model.backbone=resnet10t",
        "generate_embeddings=false",
        "generate_gradcam=false",
    )
    assert_refused(outcome, "nothing of what is asked for: attention: ResNet computes no attention")
    assert not workspace.output.exists()
