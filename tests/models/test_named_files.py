"""Files that options of a model name: known by their content, from whatever folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import transformers

from artifactgen.errors import ConfigError
from artifactgen.models.huggingface import HuggingFace
from artifactgen.models.named_files import by_content, named_files


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small CLIP, and text vectors, in the folder in which the program runs."""
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    small |= {"intermediate_size": 8, "projection_dim": 8}
    vision = {**small, "image_size": 32, "patch_size": 16}
    text = {**small, "vocab_size": 9, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    config = transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=8)
    config.save_pretrained(tmp_path / "clip")
    torch.save(torch.eye(8)[:3], tmp_path / "text.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


OPTIONS = {"path": "clip", "text_features": "text.pt", "num_classes": None}


def test_what_is_in_them_counts_and_not_where_they_lie(folder: Path) -> None:
    before = by_content(OPTIONS, named_files(OPTIONS))
    assert before["num_classes"] is None
    shutil.copytree(folder / "clip", folder / "deep" / "other")
    shutil.copy(folder / "text.pt", folder / "deep" / "vectors.pt")
    moved = {
        **OPTIONS,
        "path": str(folder / "deep" / "other"),
        "text_features": "deep/vectors.pt",
    }
    assert by_content(moved, named_files(moved)) == before
    torch.save(torch.eye(8)[3:6], folder / "text.pt")
    after = by_content(OPTIONS, named_files(OPTIONS))
    assert after["text_features"] != before["text_features"]
    assert after["path"] == before["path"]


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_what_describes_a_model_counts(folder: Path, name: str) -> None:
    file = folder / "clip" / name
    file.write_text(json.dumps({"model_type": "clip"}))
    before = by_content(OPTIONS, named_files(OPTIONS))
    file.write_text(json.dumps({"model_type": "clip", "image_mean": 0.5}))
    assert by_content(OPTIONS, named_files(OPTIONS))["path"] != before["path"]


@pytest.mark.parametrize("change", ["write", "delete"])
def test_a_change_during_a_run_is_noticed(
    folder: Path, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (files,) = (named for named in named_files(OPTIONS) if named.option == "text_features")
    monkeypatch.chdir("/")
    files.require_same()
    if change == "write":
        torch.save(torch.eye(8)[3:6], folder / "text.pt")
    else:
        (folder / "text.pt").unlink()
    with pytest.raises(ConfigError, match=r"text_features: .*text\.pt: changed while the job"):
        files.require_same()


def test_what_is_not_there_is_left_to_the_family() -> None:
    assert named_files({"path": "no/such/folder", "text_features": "no.pt", "more": 3}) == ()
    assert named_files({"path": None}) == ()


def test_a_model_is_built_from_whatever_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers of a job may begin elsewhere."""
    family = HuggingFace(path="clip", text_features="text.pt").build().family
    monkeypatch.chdir("/")
    assert family.name == "clip"
    assert family.build().family == family
    assert family.framing().interpolation == "bilinear"
