"""Checkpoints by the command itself: code in them, trust, folders, another size of images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from helpers.workspace import (
    EXPERIMENT,
    IMAGE_SIZE,
    Outcome,
    Workspace,
    write_checkpoint,
)
from safetensors.torch import save_file
from torch import Tensor

from artifactgen.models.file import identify

CKPT = "ckpt_path=own.ckpt"
REPORTED = ("Data:", "Model:", "Output:")
"""How lines begin that tell what was asked for."""


def weights(**options: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = timm.create_model("test_vit", **{"num_classes": 3, "img_size": IMAGE_SIZE, **options})
    return dict(model.state_dict())


def run(workspace: Workspace, *arguments: str) -> Outcome:
    return workspace.run(EXPERIMENT, CKPT, "splits=[test]", *arguments)


def assert_refused(workspace: Workspace, outcome: Outcome, *told: str) -> None:
    assert outcome.exit_code == 2, outcome.text
    assert "Traceback" not in outcome.text
    complaint = [line for line in outcome.lines if not line[20:].startswith(REPORTED)]
    assert 0 < len(complaint) <= 8, outcome.text
    assert "own.ckpt" in outcome.text
    for part in told:
        assert part in outcome.text, outcome.text
    assert not list(workspace.output.glob("*")), "something was written"


class Hostile:
    """Runs a command where it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        """As a pickle tells how to make it."""
        return os.system, (f"touch {self.witness}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint(workspace: Workspace, zipped: bool) -> None:
    witness = workspace.root / "witness"
    content = {"state_dict": weights(), "hyper_parameters": {"x": Hostile(witness)}}
    torch.save(content, workspace.root / "own.ckpt", _use_new_zipfile_serialization=zipped)
    told = f"refused, and nothing of it was run: besides weights it names {os.name}.system"
    outcome = run(workspace)
    assert_refused(workspace, outcome, told, "set trust_checkpoint=true")
    assert not witness.exists()
    assert run(workspace, "trust_checkpoint=true").exit_code == 0
    assert witness.exists(), "full unpickling runs what is named, which is why it is asked for"


def test_trust_is_logged_and_makes_the_same_artifacts(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights of a whole pickled model, which a module of the user's own defines."""
    write_checkpoint(workspace.root / "plain.ckpt")
    module = "import timm, torch\nclass Net(torch.nn.Module):\n    pass\n"
    (workspace.root / "nets_of_mine.py").write_text(module, "utf-8")
    make = (
        "import timm, torch, nets_of_mine\n"
        f"model = timm.create_model('test_vit', num_classes=3, img_size={IMAGE_SIZE})\n"
        "state = torch.load('plain.ckpt')['state_dict']\n"
        "model.load_state_dict({k.removeprefix('model.'): v for k, v in state.items()})\n"
        "net = nets_of_mine.Net()\n"
        "net.model = model\n"
        "torch.save(net, 'own.ckpt')\n"
    )
    subprocess.run([sys.executable, "-c", make], cwd=workspace.root, check=True, timeout=120)
    plain = "output_dir=plain"
    assert workspace.run(EXPERIMENT, "ckpt_path=plain.ckpt", "splits=[test]", plain).exit_code == 0
    assert_refused(workspace, run(workspace), "names", "nets_of_mine.Net")
    told = "ModuleNotFoundError: No module named 'nets_of_mine'"
    assert_refused(workspace, run(workspace, "trust_checkpoint=true"), told)
    monkeypatch.syspath_prepend(workspace.root)
    outcome = run(workspace, "trust_checkpoint=true")
    assert outcome.exit_code == 0, outcome.text
    warning = next(line for line in outcome.lines if "trust_checkpoint=true" in line)
    assert "WARNING: " in warning
    assert "nets_of_mine.Net" in warning
    for name in ("embeddings", "labels"):
        assert torch.equal(stored(workspace.output)[name], stored(workspace.root / "plain")[name])
    assert run(workspace).exit_code == 0, "finished: it is not asked again"


def stored(output: Path) -> Any:
    return torch.load(output / "embeddings" / "test_embeddings.pt")


def test_a_folder_of_hugging_face(workspace: Workspace) -> None:
    folder = workspace.root / "own.ckpt"
    folder.mkdir()
    state = weights()
    names = sorted(state)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for name, held in parts.items():
        save_file({key: state[key].contiguous() for key in held}, folder / name)
    index = {"weight_map": {key: name for name, held in parts.items() for key in held}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), "utf-8")
    outcome = run(workspace)
    assert outcome.exit_code == 0, outcome.text
    torch.save({"state_dict": state}, workspace.root / "one.ckpt")
    one = "output_dir=one"
    assert workspace.run(EXPERIMENT, "ckpt_path=one.ckpt", "splits=[test]", one).exit_code == 0
    found = stored(workspace.output)
    assert torch.equal(found["embeddings"], stored(workspace.root / "one")["embeddings"])
    assert found["meta"]["checkpoint_sha256"] == identify(folder).sha256
    (folder / "model-2.safetensors").unlink()
    again = run(workspace, "output_dir=other")
    assert again.exit_code == 2
    assert "1 of them are not beside it: model-2.safetensors. Copy them too." in again.text


def test_another_image_size_is_said_and_reported(workspace: Workspace) -> None:
    torch.save({"state_dict": weights(img_size=160)}, workspace.root / "own.ckpt")
    outcome = run(workspace)
    assert outcome.exit_code == 0, outcome.text
    told = "position embeddings resampled from 10 × 10 to 4 × 4"
    assert f"Checkpoint: {told}" in outcome.text
    report = (workspace.output / "run.json").read_text("utf-8")
    assert told in json.loads(report)["checkpoint"]["audit"]["adapted"]
    again = run(workspace, "output_dir=own_size", "data.image_size=null")
    assert again.exit_code == 0, again.text
    assert "160 × 160 pixels" in again.text
