"""Every command line of the manual, and what it leaves."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from helpers.workspace import (
    CKPT,
    CLASSES,
    EXPERIMENT,
    IMAGE_SIZE,
    RECORDS,
    Workspace,
    artifacts,
    assert_exact,
    snapshot,
)
from PIL import Image

from artifactgen.device import find_devices

CPU = find_devices("cpu").name
MAKE_MODEL = "experiment=embeddings/my_experiment ckpt_path=path/to/model.ckpt"


def load(path: Path) -> dict[str, torch.Tensor]:
    content: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
    return content


def test_everything_of_a_run(finished: Workspace) -> None:
    output = finished.output
    names = {path.name for path in output.iterdir()}
    assert names >= {
        *("embeddings", "gradcam", "attention_maps", "classes.json", "manifest.parquet"),
        *("failures.csv", "run.json", "summary.md", "_SUCCESS.json"),
    }
    assert json.loads((output / "classes.json").read_text()) == {"0": "cat", "1": "dog", "2": "eel"}
    for split, records in RECORDS.items():
        content = load(output / "embeddings" / f"{split}_embeddings.pt")
        ids = [f"{split}_{row:03d}" for row in range(records)]
        assert content["record_ids"] == ids
        assert content["embeddings"].shape == (records, 64)
        assert content["labels"].tolist() == [row % 3 for row in range(records)]
        assert content["classes"] == list(CLASSES)
        for record_id in ids:
            pictures = sorted(p.name for p in (output / "gradcam" / record_id).iterdir())
            assert pictures == ["class_0.png", "class_1.png", "class_2.png"]
    with Image.open(output / "gradcam" / "val_006" / "class_2.png") as picture:
        assert (picture.mode, picture.size) == ("RGB", (IMAGE_SIZE, IMAGE_SIZE))
    figures = list((output / "attention_maps").iterdir())
    assert len(figures) == sum(RECORDS.values())


def test_manifest_maps_records_to_rows_and_files(finished: Workspace) -> None:
    rows = pq.read_table(finished.output / "manifest.parquet").to_pylist()
    assert [row["split"] for row in rows] == [s for s, n in RECORDS.items() for _ in range(n)]
    embeddings = load(finished.output / "embeddings" / "test_embeddings.pt")
    for row in rows[-RECORDS["test"] :]:
        assert embeddings["record_ids"][row["row"]] == row["record_id"]
        assert row["gradcam_files"] == [
            f"gradcam/{row['record_id']}/class_{k}.png" for k in range(3)
        ]
        assert all((finished.output / file).is_file() for file in row["attention_files"])


def test_run_json_says_what_was_done(finished: Workspace) -> None:
    report = json.loads((finished.output / "run.json").read_text())
    counts = report["counts"]
    assert counts["records"] == sum(RECORDS.values())
    assert counts["failures"] == 0
    drawn = [p for p in finished.output.rglob("*.png") if not p.name.startswith("overview")]
    assert counts["pictures"] == len(drawn)
    assert counts["picture_bytes"] == sum(path.stat().st_size for path in drawn)
    assert {k: v["records"] for k, v in counts["by_split"].items()} == RECORDS
    assert report["checkpoint"]["audit"]["share"] == 1.0
    assert report["configuration"]["data"]["batch_size"] == 2
    assert report["workers"] == 1
    assert report["device"] == CPU
    computed_by = {"device": CPU, "host": socket.gethostname(), "shards": 19, "records": 36}
    assert report["computed_by"] == [computed_by]
    assert set(report["artifacts"]) == {"embeddings", "gradcam", "attention"}
    assert torch.__version__.startswith(report["versions"]["torch"])
    assert report["seconds"]["total"] >= report["seconds"]["shards"] > 0
    told = shlex.split(report["command"])
    assert told == ["generate_artifacts", "--config-dir", str(finished.conf), EXPERIMENT, CKPT]
    summary = (finished.output / "summary.md").read_text()
    assert "36 records, 0 failed, 144 pictures" in summary
    assert "| train | 24 | 0 | 96 |" in summary


def test_the_terminal_tells_inputs_artifacts_progress_and_place(finished: Workspace) -> None:
    told = (finished.root / "told.txt").read_text()
    assert "Data: Hdf5, records: train 24, val 7, test 5; 3 classes" in told
    assert "Model: test_vit, 64 × 64 pixels, 3 classes" in told
    assert "Checkpoint: model.ckpt, 100 % of the encoder" in told
    assert f"Workers: 1 × {CPU}, 1 thread each, in this process; batches of 2" in told
    assert "36 of 36 records (100 %)" in told
    assert f"See {finished.output / 'summary.md'}" in told


@pytest.mark.parametrize(
    ("options", "present", "absent"),
    [
        (
            "splits=[train,val]",
            {"embeddings/train_embeddings.pt", "embeddings/val_embeddings.pt"},
            {"embeddings/test_embeddings.pt", "gradcam/test_000"},
        ),
        ("splits=[train]", {"gradcam/train_023"}, {"gradcam/val_000"}),
        (
            "generate_embeddings=true generate_gradcam=false generate_attention=false",
            {"embeddings/test_embeddings.pt"},
            {"gradcam", "attention_maps"},
        ),
        (
            "generate_embeddings=false generate_gradcam=true target_classes=[0,1]",
            {"gradcam/val_000/class_1.png", "attention_maps"},
            {"embeddings", "gradcam/val_000/class_2.png"},
        ),
        ("target_classes=[eel]", {"gradcam/val_000/class_2.png"}, {"gradcam/val_000/class_0.png"}),
        ("data.batch_size=16", {"gradcam/val_000/class_1.png"}, set()),
        ("save_maps=true splits=[val]", {"maps/val/val-000000.h5"}, {"maps/train"}),
    ],
)
def test_commands_of_the_manual(
    workspace: Workspace, options: str, present: set[str], absent: set[str]
) -> None:
    outcome = workspace.run(*MAKE_MODEL.split(), "limit=25", *options.split())
    assert outcome.exit_code == 0, outcome.text
    for name in ("_SUCCESS.json", "summary.md", *present):
        assert (workspace.output / name).exists(), name
    for name in absent:
        assert not (workspace.output / name).exists(), name


def test_output_dir(workspace: Workspace, finished: Workspace) -> None:
    outcome = workspace.run(EXPERIMENT, CKPT, "output_dir=path/to/custom/dir", "splits=[val]")
    assert outcome.exit_code == 0, outcome.text
    custom = artifacts(workspace.root / "path/to/custom/dir")
    whole = artifacts(finished.output)
    assert custom == {name: whole[name] for name in custom}
    assert not workspace.output.exists()


def test_the_checkpoint_can_stand_in_the_experiment(
    workspace: Workspace, shared: Path, tmp_path: Path
) -> None:
    conf = tmp_path / "conf"
    (conf / "experiment").mkdir(parents=True)
    text = (shared / "conf/experiment/embeddings/my_experiment.yaml").read_text()
    (conf / "experiment" / "mine.yaml").write_text(f"{text}\nckpt_path: a.ckpt\nsplits: [test]\n")
    outcome = Workspace(workspace.root, conf).run("experiment=mine")
    assert outcome.exit_code == 0, outcome.text
    assert (workspace.root / "artifacts/mine/embeddings/test_embeddings.pt").exists()


def test_the_command_line_wins_over_the_experiment(workspace: Workspace, shared: Path) -> None:
    outcome = workspace.run(
        EXPERIMENT,
        CKPT,
        *("data=cmr_acdc", f"data.root={shared / 'acdc'}", "~data.path", "dry_run=true"),
        "model.num_classes=3",
    )
    assert "Data: CmrAcdc, records: train" in outcome.text, outcome.text


def test_predicted_draws_one_picture_of_the_predicted_class(workspace: Workspace) -> None:
    outcome = workspace.run(EXPERIMENT, CKPT, "target_classes=predicted", "splits=[val]")
    assert outcome.exit_code == 0, outcome.text
    for row in pq.read_table(workspace.output / "manifest.parquet").to_pylist():
        expected = f"gradcam/{row['record_id']}/class_{row['prediction']}.png"
        assert row["gradcam_files"] == [expected]
        drawn = list((workspace.output / "gradcam" / row["record_id"]).iterdir())
        assert drawn == [workspace.output / expected]


def test_other_splits_join_those_that_are_there(workspace: Workspace, finished: Workspace) -> None:
    assert workspace.run(EXPERIMENT, CKPT, "splits=[train]").exit_code == 0
    train = workspace.output / "embeddings" / "train_embeddings.pt"
    before = train.stat().st_mtime_ns
    assert workspace.run(EXPERIMENT, CKPT, "splits=[val,test]").exit_code == 0
    assert train.stat().st_mtime_ns == before
    assert_exact(workspace.output, finished.output)
    report = json.loads((workspace.output / "run.json").read_text())
    assert {k: v["records"] for k, v in report["counts"]["by_split"].items()} == RECORDS
    assert workspace.run(EXPERIMENT, CKPT).text.count("Complete: nothing to do") == 1


def test_one_split_needs_no_list(workspace: Workspace) -> None:
    assert workspace.run(EXPERIMENT, CKPT, "splits=test", "limit=1").exit_code == 0
    assert [p.name for p in (workspace.output / "gradcam").iterdir()] == ["test_000"]


def test_record_id_makes_only_this_record_and_the_same_bytes(
    workspace: Workspace, finished: Workspace
) -> None:
    outcome = workspace.run(EXPERIMENT, CKPT, "record_id=val_003")
    assert outcome.exit_code == 0, outcome.text
    found, whole = artifacts(workspace.output), artifacts(finished.output)
    single = found.pop("embeddings/val_003_embedding.pt")
    assert single
    assert set(found) == {
        "attention_maps/val_003_attention.png",
        *(f"gradcam/val_003/class_{k}.png" for k in range(3)),
    }
    assert found == {name: whole[name] for name in found}
    embedding = load(workspace.output / "embeddings" / "val_003_embedding.pt")
    split = load(finished.output / "embeddings" / "val_embeddings.pt")
    assert torch.equal(embedding["embeddings"], split["embeddings"][3:4])
    assert embedding["record_ids"] == ["val_003"]
    assert embedding["labels"].tolist() == [0]
    assert embedding.keys() == split.keys()
    assert not (workspace.output / "_SUCCESS.json").exists()


def test_record_id_leaves_the_files_of_a_whole_run_alone(
    tmp_path: Path, workspace: Workspace
) -> None:
    assert workspace.run(EXPERIMENT, CKPT, "splits=[val]").exit_code == 0
    visible = {k: v for k, v in snapshot(workspace.output).items() if ".artifactgen" not in k}
    ids = "record_id=[val_001,test_004]"
    assert workspace.run(EXPERIMENT, CKPT, ids).exit_code == 0
    after = {k: v for k, v in snapshot(workspace.output).items() if ".artifactgen" not in k}
    redrawn = ("gradcam/val_001/", "attention_maps/val_001")
    assert {k: v for k, v in after.items() if k in visible and not k.startswith(redrawn)} == {
        k: v for k, v in visible.items() if not k.startswith(redrawn)
    }
    assert {k for k in after if k not in visible and k.endswith(".pt")} == {
        "embeddings/val_001_embedding.pt",
        "embeddings/test_004_embedding.pt",
    }
    again = workspace.run(EXPERIMENT, CKPT, ids)
    assert "Complete: nothing to do" in again.text


def test_a_sweep_has_one_output_directory_per_job(
    workspace: Workspace, finished: Workspace
) -> None:
    outcome = workspace.run("-m", EXPERIMENT, "ckpt_path=a.ckpt,b.ckpt", "splits=[test]")
    assert outcome.exit_code == 0, outcome.text
    folders = sorted(path.name for path in workspace.output.iterdir())
    assert folders == ["ckpt_path-a.ckpt", "ckpt_path-b.ckpt"]
    a, b = (artifacts(workspace.output / name) for name in folders)
    assert a.keys() == b.keys()
    name = "embeddings/test_embeddings.pt"
    assert a[name] == artifacts(finished.output)[name]
    assert a[name] != b[name]
    command = json.loads((workspace.output / folders[0] / "run.json").read_text())["command"]
    assert command.endswith(f"-m {EXPERIMENT} ckpt_path=a.ckpt,b.ckpt 'splits=[test]'")


def test_a_job_of_a_sweep_that_fails_leaves_the_others_alone(workspace: Workspace) -> None:
    outcome = workspace.run("-m", EXPERIMENT, "ckpt_path=nope.ckpt,b.ckpt", "limit=1")
    assert outcome.exit_code == 2
    assert "ckpt_path=nope.ckpt: no such file" in outcome.text
    assert "Traceback" not in outcome.text
    assert [path.name for path in workspace.output.iterdir()] == ["ckpt_path-b.ckpt"]
    assert (workspace.output / "ckpt_path-b.ckpt" / "_SUCCESS.json").exists()


def test_flags_may_stand_between_overrides(workspace: Workspace) -> None:
    outcome = workspace.run(EXPERIMENT, "-m", "ckpt_path=a.ckpt,b.ckpt", "dry_run=true")
    assert outcome.exit_code == 0, outcome.text
    assert outcome.text.count("dry_run: nothing was written.") == 2


def test_paths_with_equals_signs_as_lightning_names_checkpoints(
    workspace: Workspace, shared: Path
) -> None:
    for name in ("epoch=1-step=20.ckpt", "epoch=2-step=40.ckpt"):
        (workspace.root / name).symlink_to(shared / "a.ckpt")
    one = workspace.run(
        EXPERIMENT, "ckpt_path=epoch=1-step=20.ckpt", "limit=1", "output_dir=out/run=1"
    )
    assert one.exit_code == 0, one.text
    assert (workspace.root / "out" / "run=1" / "_SUCCESS.json").exists()
    two = workspace.run(
        "-m", EXPERIMENT, "ckpt_path=epoch=1-step=20.ckpt,epoch=2-step=40.ckpt", "limit=1"
    )
    assert two.exit_code == 0, two.text
    assert len(list(workspace.output.iterdir())) == 2


def test_a_finished_run_again_changes_nothing(finished: Workspace) -> None:
    before = snapshot(finished.root)
    outcome = finished.run(EXPERIMENT, CKPT)
    assert outcome.exit_code == 0
    assert "Complete: nothing to do." in outcome.text
    assert snapshot(finished.root) == before


def test_workers_and_readers_do_not_make_it_another_run(finished: Workspace) -> None:
    before = snapshot(finished.root)
    others = ("cluster=ray", "cluster.workers=2", "data.num_workers=1")
    outcome = finished.run(EXPERIMENT, CKPT, *others)
    assert "Complete: nothing to do." in outcome.text, outcome.text
    assert snapshot(finished.root) == before


def test_dry_run_tells_the_plan_and_writes_nothing(workspace: Workspace) -> None:
    before = snapshot(workspace.root)
    outcome = workspace.run(EXPERIMENT, CKPT, "dry_run=true")
    assert outcome.exit_code == 0
    for line in (
        "Plan: train, 24 records in 12 shards",
        "Plan: 144 pictures, about ",
        "Classes: 0 cat, 1 dog, 2 eel",
        "Artifact: gradcam, method gradcam, layer blocks.5.norm1, classes [0, 1, 2]",
        "dry_run: nothing was written.",
    ):
        assert line in outcome.text
    assert snapshot(workspace.root) == before


def test_overwrite_replaces_what_other_settings_made(
    workspace: Workspace, finished: Workspace
) -> None:
    assert workspace.run(EXPERIMENT, CKPT, "target_classes=[2]", "limit=1").exit_code == 0
    (workspace.output / "notes.txt").write_text("mine")
    outcome = workspace.run(EXPERIMENT, CKPT, "overwrite=true")
    assert outcome.exit_code == 0, outcome.text
    assert "removing what other settings made: artifacts.gradcam.target_classes" in outcome.text
    assert "notes.txt is not of this program, and was left alone." in outcome.text
    assert (workspace.output / "notes.txt").read_text() == "mine"
    assert_exact(workspace.output, finished.output)


def test_overwrite_starts_anew_where_the_state_is_damaged(workspace: Workspace) -> None:
    arguments = (EXPERIMENT, CKPT, "limit=1")
    assert workspace.run(*arguments).exit_code == 0
    (workspace.output / ".artifactgen" / "settings.json").write_text("{")
    refused = workspace.run(*arguments)
    assert refused.exit_code == 2
    assert "settings.json is damaged" in refused.text
    assert "add overwrite=true" in refused.text
    assert workspace.run(*arguments, "overwrite=true").exit_code == 0
    assert workspace.run(*arguments).text.count("Complete") == 1


def test_module_and_console_script_are_the_same_program(workspace: Workspace) -> None:
    script = Path(sys.executable).with_name("generate_artifacts")
    arguments = ["--config-dir", str(workspace.conf), EXPERIMENT, CKPT, "--cfg", "job"]
    told = [
        subprocess.run(
            [*program, *arguments], cwd=workspace.root, capture_output=True, check=True, text=True
        ).stdout
        for program in ([sys.executable, "-m", "distributed.launch"], [str(script)])
    ]
    assert told[0] == told[1]
    assert "ckpt_path: path/to/model.ckpt" in told[0]


def test_the_command_works_on_cine_mri(workspace: Workspace, shared: Path) -> None:
    outcome = workspace.run(
        "experiment=embeddings/default",
        CKPT,
        *("model=timm", "model.backbone=test_vit", "generate_gradcam=false"),
        *(f"data.root={shared / 'acdc'}", f"data.image_size={IMAGE_SIZE}", "limit=2"),
        *("model.num_classes=3", "cluster.threads_per_worker=1"),
    )
    assert outcome.exit_code == 0, outcome.text
    output = workspace.root / "artifacts" / "default"
    content = load(output / "embeddings" / "train_embeddings.pt")
    assert content["classes"] == ["DCM", "HCM", "MINF", "NOR", "RV"]
    assert len(content["record_ids"]) == 2


@pytest.mark.parametrize(
    "options", ["model.options={depth: 6, num_heads: 2}", "model.options.depth=6"]
)
def test_arguments_of_timm_are_given_on_the_command_line(
    workspace: Workspace, options: str
) -> None:
    outcome = workspace.run(EXPERIMENT, CKPT, options, "dry_run=true")
    assert outcome.exit_code == 0, outcome.text
    refused = workspace.run(EXPERIMENT, CKPT, "model.options.dept=6", "dry_run=true")
    assert refused.exit_code == 2
    assert "model.options.dept=6: test_vit takes no argument dept" in refused.text, refused.text
