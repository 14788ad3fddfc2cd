"""Every configuration file composes, explains itself, and says what the manual says."""

from __future__ import annotations

import dataclasses
import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from distributed.cli import register_resolvers
from distributed.job import register_launcher
from distributed.settings import SECTIONS, Settings, parse
from distributed.slurm.options import JobOptions
from distributed.usage import config_dir

ROOT = config_dir()
FILES = sorted(ROOT.rglob("*.yaml"))
GROUPS = sorted(path.name for path in ROOT.iterdir() if path.is_dir())

DEFAULTS = {
    "ckpt_path": None,
    "splits": ["train", "val", "test"],
    "record_id": None,
    "generate_embeddings": True,
    "generate_gradcam": True,
    "generate_attention": True,
    "target_classes": None,
    "output_dir": "artifacts/default",
    "accelerator": "auto",
    "precision": "auto",
    "pooling": "auto",
    "save_maps": False,
    "max_failures": 0.01,
    "seed": 2022,
    "retry_failures": False,
    "limit": None,
    "overwrite": False,
    "debug": False,
    "dry_run": False,
    "wait": True,
    "data.batch_size": 32,
    "data.num_workers": 4,
    "data.root": "data/acdc",
    "model.backbone": "vit_base_patch16",
    "model.num_classes": None,
    "gradcam.method": "gradcam",
    "gradcam.layer": "auto",
    "gradcam.style": "overlay",
    "gradcam.scale": "map",
    "attention.method": "cls",
    "attention.layers": [-1],
}
"""What the manual promises of `experiment=embeddings/default`."""


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("DATA_DIR", "ARTIFACT_DIR", "LOG_DIR"):
        monkeypatch.delenv(name, raising=False)
    register_resolvers()
    register_launcher(yaml.safe_load((ROOT / "launcher" / "submitit_slurm.yaml").read_text()))
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT)):
        yield
    HydraConfig.instance().cfg = None


def composed(*overrides: str) -> dict[str, Any]:
    """What a command line amounts to, in plain containers."""
    config = compose("artifacts", overrides=list(overrides), return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    with_hydra: dict[str, Any] = OmegaConf.to_container(config, resolve=False)  # type: ignore[assignment]
    del with_hydra["hydra"]
    plain = OmegaConf.to_container(OmegaConf.create(with_hydra), resolve=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def option(name: str, group: str) -> str:
    """How a file of a group is chosen on a command line."""
    return f'{"hydra/" * (group == "launcher")}{group}="{name}"'


CHOICES = [
    (path.parts[0], str(Path(*path.parts[1:]).with_suffix("")))
    for path in (file.relative_to(ROOT) for file in FILES)
    if len(path.parts) > 1
]


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_every_file_of_every_group_composes(group: str, name: str) -> None:
    overrides = ["experiment=embeddings/default", "ckpt_path=model.ckpt"]
    if group == "experiment":
        overrides[0] = f"experiment={name}"
    elif group == "artifact":
        overrides.append(f"artifact=[{name}]")
    else:
        overrides.append(option(name, group))
    if (group, name) == ("data", "hdf5"):
        overrides.append("data.path=images.h5")
    settings, kinds = parse(composed(*overrides))
    assert settings.output_dir.parts
    assert kinds
    if group == "artifact":
        assert list(kinds) == [name]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_key_is_explained(file: Path) -> None:
    lines = file.read_text().partition("\nhydra:")[0].splitlines()
    assert any(line.startswith("# ") for line in lines), "a file begins with what it is"
    if file.relative_to(ROOT).parts[0] in ("experiment", "debug"):
        return  # they give values to keys that are explained elsewhere
    unexplained = [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if re.match(r"\s*\w+: *\S", line)
        and not re.match(r"_target_:|generate_\w+:", line.strip())
        and "#" not in line
        and not before.startswith("#")
    ]
    assert unexplained == []


@pytest.mark.parametrize(("key", "value"), DEFAULTS.items())
def test_defaults_of_the_manual(key: str, value: Any) -> None:
    found: Any = composed("experiment=embeddings/default")
    for part in key.split("."):
        found = found[part]
    assert found == value


def test_choices_of_the_default_experiment() -> None:
    composed("experiment=embeddings/default")
    choices = HydraConfig.get().runtime.choices
    assert choices["model"] == "mae_vit"
    assert choices["data"] == "cmr_acdc"
    assert choices["paths"] == "default"


def test_no_root_option_is_unknown_to_the_program_and_none_is_missing() -> None:
    root = yaml.safe_load((ROOT / "artifacts.yaml").read_text())
    in_file = set(root) - {"defaults", "hydra"}
    in_code = {name for name in Settings.model_fields if name not in (*GROUPS, "pages")}
    assert in_file == in_code


OF_ALL = {
    "data": {"batch_size", "num_workers", "image_size", "mean", "std", "max_value"},
    "model": {"num_classes", "in_chans", "mean", "std", "classes", "compile"},
}
"""Options that every choice of a group has. Some are the driver's, and no field of a class."""
FILLED_IN = {"model": {"image_size"}, "data": {"keep_stored"}}
STANDS_FOR = {"framing": {"crop_pct", "crop_mode", "interpolation"}}
"""A field that the driver makes of several options."""


@pytest.mark.parametrize("group", ["data", "model", "artifact", "page", "cluster"])
def test_files_and_classes_have_the_same_options(group: str) -> None:
    """An option that is only in the class could not be found; one only in the file would fail."""
    files = sorted((ROOT / group).glob("*.yaml"))
    assert files
    for file in files:
        content = yaml.safe_load(file.read_text())
        section = content[file.stem] if group == "artifact" else content
        module, _, name = section.pop("_target_").rpartition(".")
        cls = getattr(importlib.import_module(module), name)
        options = {field.name for field in dataclasses.fields(cls)} - FILLED_IN.get(group, set())
        for field in options & STANDS_FOR.keys():
            options = (options - {field}) | STANDS_FOR[field]
        of_all = OF_ALL.get(group, set())
        assert of_all <= set(section), file
        assert set(section) - of_all == options - of_all, file


def test_the_settings_of_a_job_are_the_same_in_file_and_class() -> None:
    content = yaml.safe_load((ROOT / "launcher" / "submitit_slurm.yaml").read_text())
    del content["_target_"]
    defaults = {
        field.name: {} if field.name == "additional_parameters" else field.default
        for field in dataclasses.fields(JobOptions)
        if field.name != "submitit_folder"
    }
    assert content.pop("submitit_folder") == "${paths.log_dir}/slurm/%j"
    assert content == defaults


def test_the_launcher_is_ours_also_beside_the_plugin_of_that_name() -> None:
    composed("experiment=embeddings/default", option("submitit_slurm", "launcher"))
    launcher = HydraConfig.get().launcher
    assert launcher["_target_"] == "hydra_plugins.artifactgen.SlurmLauncher"
    assert launcher["submitit_folder"] == "logs/slurm/%j"


def test_the_sections_that_name_a_class_are_known() -> None:
    config = composed("experiment=embeddings/default", "ckpt_path=model.ckpt")
    named = {
        key for key, value in config.items() if isinstance(value, dict) and "_target_" in value
    }
    _, kinds = parse(config)
    assert named == {*kinds, *SECTIONS}


def test_data_and_model_on_the_command_line_win_over_the_experiment() -> None:
    config = composed("experiment=embeddings/default", "data=phantom", "model=timm")
    assert config["data"]["_target_"].endswith("Phantom")
    assert config["model"]["_target_"].endswith("Timm")
    assert config["model"]["backbone"] is None, "not that of the experiment's own choice"
    assert HydraConfig.get().runtime.choices["model"] == "timm"
