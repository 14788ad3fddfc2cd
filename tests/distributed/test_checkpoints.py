"""Checkpoints as people have them, with what they say of themselves, through the whole program."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import pytest
import timm
import torch
from helpers.workspace import EXPERIMENT, IMAGE_SIZE, Outcome, Workspace
from torch import nn

from artifactgen.embeddings import load_embeddings
from distributed.cli import prepare

CKPT = "ckpt_path=own.ckpt"
VIT = {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 16}
SAID = {"backbone": "vit_tiny_patch16_224", **VIT, "img_size": IMAGE_SIZE}
MEAN, STD = [0.1, 0.2, 0.3], [0.4, 0.5, 0.6]
WITHOUT_BACKBONE = "model.backbone=null"
EXACTLY = "precision=32-true"


def small_vit(**options: Any) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = timm.create_model(
        "vit_tiny_patch16_224", **{"img_size": IMAGE_SIZE, "num_classes": 3, **VIT, **options}
    )
    return made


def save(workspace: Workspace, module: nn.Module, **content: Any) -> None:
    torch.save({"state_dict": module.state_dict(), **content}, workspace.root / "own.ckpt")


def assert_complete(outcome: Outcome) -> None:
    assert outcome.exit_code == 0, outcome.text


def report(workspace: Workspace) -> Any:
    return json.loads((workspace.output / "run.json").read_text("utf-8"))


def test_what_it_states_is_all_that_is_needed(workspace: Workspace) -> None:
    """Architecture, number of heads, mean and std of the training, with nothing set."""
    model = small_vit()
    save(workspace, model, hyper_parameters={**SAID, "mean": MEAN, "std": STD})
    outcome = workspace.run(EXPERIMENT, CKPT, WITHOUT_BACKBONE, "splits=[test]", EXACTLY)
    assert_complete(outcome)
    told = "stated in the checkpoint and taken: backbone vit_tiny_patch16_224"
    assert told in outcome.text
    assert "num_heads 3 (hyper_parameters.num_heads)" in outcome.text
    assert (
        "mean 0.1, 0.2, 0.3, std 0.4, 0.5, 0.6 as the checkpoint states "
        "(hyper_parameters.mean, hyper_parameters.std)"
    ) in outcome.text
    assert told in (workspace.output / "summary.md").read_text("utf-8")
    assert_normalised(workspace, model, MEAN, STD)


def assert_normalised(workspace: Workspace, model: Any, mean: Any, std: Any) -> None:
    with h5py.File(workspace.conf.parent / "images.h5", locking=False) as file:
        images = torch.from_numpy(file["test/images"][:]).permute(0, 3, 1, 2) / 255
    x_BCHW = (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    with torch.inference_mode():
        expected = model.eval().forward_head(model.forward_features(x_BCHW), pre_logits=True)
    stored = load_embeddings(workspace.output / "embeddings" / "test_embeddings.pt")
    torch.testing.assert_close(stored.embeddings, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("section", ["data", "model"])
def test_what_is_set_goes_before_what_is_stated(workspace: Workspace, section: str) -> None:
    model = small_vit()
    save(workspace, model, hyper_parameters={**SAID, "mean": MEAN, "std": STD})
    own = (f"{section}.mean=[0.5,0.5,0.5]", f"{section}.std=[0.25]")
    outcome = workspace.run(EXPERIMENT, CKPT, WITHOUT_BACKBONE, "splits=[test]", EXACTLY, *own)
    assert_complete(outcome)
    assert_normalised(workspace, model, [0.5] * 3, [0.25] * 3)


def test_another_config_beside_the_checkpoint_is_noticed(workspace: Workspace) -> None:
    save(workspace, small_vit())
    config: dict[str, Any] = {"architecture": SAID["backbone"], "model_args": VIT}
    config["pretrained_cfg"] = {"mean": MEAN, "std": STD}
    path = workspace.root / "config.json"
    path.write_text(json.dumps(config), "utf-8")
    run = (EXPERIMENT, CKPT, WITHOUT_BACKBONE)
    assert_complete(workspace.run(*run, "splits=[train]"))
    config["pretrained_cfg"]["mean"] = [0.5, 0.5, 0.5]
    path.write_text(json.dumps(config), "utf-8")
    outcome = workspace.run(*run, "splits=[val]")
    assert outcome.exit_code == 2
    assert "normalization.mean: [0.1, 0.2, 0.3] → [0.5, 0.5, 0.5]" in outcome.text
    config["model_args"] = {**VIT, "num_heads": 4}
    config["pretrained_cfg"]["mean"] = MEAN
    path.write_text(json.dumps(config), "utf-8")
    outcome = workspace.run(*run, "splits=[val]")
    assert outcome.exit_code == 2
    assert "model.options.num_heads: 3 → 4" in outcome.text


def test_the_config_of_another_model_is_left_aside(workspace: Workspace) -> None:
    save(workspace, small_vit(), hyper_parameters=SAID)
    config = {"architecture": "resnet18", "pretrained_cfg": {"mean": MEAN, "std": STD}}
    (workspace.root / "config.json").write_text(json.dumps(config), "utf-8")
    assert_complete(workspace.run(EXPERIMENT, CKPT, WITHOUT_BACKBONE, "splits=[test]"))
    assert report(workspace)["checkpoint"]["audit"]["aside"] == "resnet18"
    told = "config.json beside it is of resnet18, left aside"
    assert told in report(workspace)["checkpoint"]["summary"]
    assert told in (workspace.output / "summary.md").read_text("utf-8")
    assert "pretrained_cfg" not in report(workspace)["checkpoint"]["summary"]


def test_placeholders_are_no_names_of_classes(workspace: Workspace) -> None:
    """`LABEL_0`, as Hugging Face writes it, instead of the names that the data set has."""
    save(workspace, small_vit(), hyper_parameters=SAID)
    config = {
        "architecture": SAID["backbone"],
        "id2label": {str(i): f"LABEL_{i}" for i in range(3)},
    }
    (workspace.root / "config.json").write_text(json.dumps(config), "utf-8")
    assert_complete(workspace.run(EXPERIMENT, CKPT, WITHOUT_BACKBONE, "splits=[test]"))
    names = json.loads((workspace.output / "classes.json").read_text("utf-8"))
    assert names == {"0": "cat", "1": "dog", "2": "eel"}


class Training(nn.Module):
    """The commonest LightningModule."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = small_vit(num_classes=0), head


def test_a_backbone_and_a_head(workspace: Workspace) -> None:
    for layers in ([], [nn.LayerNorm(48)]):
        save(workspace, Training(nn.Sequential(*layers, nn.Linear(48, 3))), hparams=SAID)
        outcome = workspace.run(
            EXPERIMENT, CKPT, WITHOUT_BACKBONE, "splits=[test]", "overwrite=true"
        )
        assert_complete(outcome)
        assert "prefix backbone. under state_dict, head loaded from head (" in outcome.text
        assert "3 classes" in outcome.text
        assert (workspace.output / "gradcam" / "test_000" / "class_2.png").exists()


def test_a_head_that_weights_do_not_tell_stops_gradcam_and_is_settled_by_an_option(
    workspace: Workspace,
) -> None:
    head = nn.Sequential(nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 3))
    save(workspace, Training(head), hparams=SAID)
    run = (EXPERIMENT, CKPT, WITHOUT_BACKBONE, "splits=[test]")
    outcome = workspace.run(*run)
    assert outcome.exit_code == 2
    assert (
        "GradCAM needs a classifier. head (Linear 48 → 8, Linear 8 → 3) lies beside the encoder, "
        "and what is between its layers leaves no trace in weights: say it, as in "
        "model.head_layers=[Linear,ReLU,Linear].\nOr set generate_gradcam=false."
    ) in outcome.text
    assert_complete(workspace.run(*run, "model.head_layers=[Linear,ReLU,Linear]"))
    assert "head (Linear 48 → 8, ReLU, Linear 8 → 3)" in report(workspace)["checkpoint"]["summary"]


def test_gradcam_names_what_could_be_the_classifier(workspace: Workspace) -> None:
    """It said that the checkpoint has none."""
    module = small_vit(num_classes=0)
    state = {f"net.{name}": tensor for name, tensor in module.state_dict().items()}
    state["projector.weight"] = torch.ones(8, 48)
    torch.save({"state_dict": state, "hparams": SAID}, workspace.root / "own.ckpt")
    outcome = workspace.run(EXPERIMENT, CKPT, WITHOUT_BACKBONE, "splits=[test]")
    assert outcome.exit_code == 2
    assert (
        "GradCAM needs a classifier. projector (Linear 48 → 8) lies beside the encoder and its "
        "name says something else (projector): set model.head=projector if it is the classifier."
    ) in outcome.text


def test_control_characters_of_a_checkpoint_reach_no_report(workspace: Workspace) -> None:
    module = Training(nn.Linear(48, 3))
    module.register_buffer("\x1b[31mred\n", torch.ones(1))
    save(workspace, module, hparams={**SAID, "\x1b[2J": "\x07"})
    outcome = workspace.run(EXPERIMENT, CKPT, WITHOUT_BACKBONE, "splits=[test]")
    assert_complete(outcome)
    assert r"ignored 1: \x1b[31mred\n" in outcome.text
    for name in ("run.json", "summary.md"):
        text = (workspace.output / name).read_text("utf-8")
        assert not {"\x1b", "\x07"} & set(text), name
        assert r"\u001b" not in text, name


# Options on the command line.


def options_of(workspace: Workspace) -> Mapping[str, Any]:
    found: Mapping[str, Any] = report(workspace)["configuration"]["model"]["options"]
    return found


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((), {"depth": 3, "num_heads": 2}),
        (("model.options={}",), {}),
        (("model.options={ }",), {}),
        (("++model.options={}",), {}),
        (("model.options={}", "model.options.depth=2"), {"depth": 2}),
        (("model.options={depth: 2}",), {"depth": 2, "num_heads": 2}),
        (("model.options.depth=2",), {"depth": 2, "num_heads": 2}),
    ],
)
def test_options_of_an_experiment_can_be_emptied(
    workspace: Workspace, tmp_path: Path, arguments: tuple[str, ...], options: dict[str, Any]
) -> None:
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    text = (workspace.conf / "experiment" / "embeddings" / "my_experiment.yaml").read_text("utf-8")
    changed = text.replace("backbone: test_vit", "backbone: test_vit\n  options: {depth: 3}")
    changed = changed.replace("{depth: 3}", "{depth: 3, num_heads: 2}")
    (folder / "mine.yaml").write_text(changed, "utf-8")
    heads = {key: value for key, value in options.items() if key == "num_heads"}
    size = {"img_size": IMAGE_SIZE, "num_classes": 3, "depth": options.get("depth", 6)}
    save(workspace, timm.create_model("test_vit", **size, **heads))
    outcome = Workspace(workspace.root, tmp_path / "conf").run(
        "experiment=mine", CKPT, "splits=[test]", "output_dir=out", *arguments
    )
    assert_complete(outcome)
    configuration = json.loads((workspace.root / "out" / "run.json").read_text("utf-8"))
    assert configuration["configuration"]["model"]["options"] == options


def test_a_sweep_may_empty_them_as_well() -> None:
    prepared = prepare(["-m", "model.options={}", "pooling=cls,mean"])
    assert prepared[:3] == ["-m", "++model.options=null", "++model.options={}"]
    assert "model.options" in prepared[-1]
    assert "pooling" not in prepared[-1]
