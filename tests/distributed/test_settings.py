"""From a configuration to the objects that do the work."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from helpers.workspace import CLASSES, IMAGE_SIZE, Workspace

from artifactgen.clock import Clock
from artifactgen.data.base import Catalog
from artifactgen.device import find_devices
from artifactgen.errors import ConfigError, DataError
from artifactgen.job import Job
from distributed.build import build, class_names
from distributed.cli import prepare
from distributed.inputs import Inputs, build_runner, choose_splits, read_inputs, usual_order
from distributed.request import Request
from distributed.run import Run
from distributed.runners.inline import Inline
from distributed.settings import Settings, parse

LAUNCHER = "hydra/launcher=submitit_slurm"
Compose = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def base(
    tmp_path_factory: pytest.TempPathFactory, make_workspace: Callable[[Path], Workspace]
) -> dict[str, Any]:
    """The configuration of a run, as it is kept in its report."""
    workspace = make_workspace(tmp_path_factory.mktemp("base"))
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        workspace.run(
            "experiment=embeddings/my_experiment",
            f"ckpt_path={workspace.root / 'a.ckpt'}",
            *("--cfg", "job", "--resolve"),
        )
    config: dict[str, Any] = yaml.safe_load(told.getvalue())
    return config


@pytest.fixture
def config(base: dict[str, Any]) -> Compose:
    """The configuration with changes: `config({"data.batch_size": 3})`."""

    def change(changes: dict[str, Any] | None = None) -> dict[str, Any]:
        changed: dict[str, Any] = yaml.safe_load(yaml.safe_dump(base))
        for key, value in (changes or {}).items():
            *sections, last = key.split(".")
            target = changed
            for section in sections:
                target = target[section]
            target[last] = value
        return changed

    return change


def known(config: dict[str, Any]) -> Inputs:
    """What is known of a run without its model."""
    settings, kinds = parse(config)
    build_runner(settings)
    return read_inputs(settings, kinds)


def built(config: dict[str, Any]) -> Job:
    """The job of a configuration, on the CPU."""
    settings = parse(config)[0]
    run = Run(settings, known(config), Inline(), Request(config, ""), (), Clock())
    return build(run, find_devices("cpu"), threads_each=1, calibrated=None).job


def parsed(config: dict[str, Any]) -> Settings:
    return parse(config)[0]


def test_image_size_is_a_number_or_a_pair(config: Compose) -> None:
    assert parsed(config({"data.image_size": 32})).data.image_size == (32, 32)
    assert parsed(config({"data.image_size": [32, 48]})).data.image_size == (32, 48)
    assert parsed(config({"data.image_size": None})).data.image_size is None
    for wrong in (0, [32], [32, -1], "large"):
        with pytest.raises(ConfigError, match=r"data\.image_size"):
            parsed(config({"data.image_size": wrong}))


def test_record_ids_may_be_numbers_and_lists(config: Compose) -> None:
    assert parsed(config()).record_id == ()
    assert parsed(config({"record_id": 7})).record_id == ("7",)
    assert parsed(config({"record_id": ["a", 12]})).record_id == ("a", "12")
    for ambiguous in (1.5, True, [["a"]]):
        with pytest.raises(ConfigError, match=r"record_id=.*quotes"):
            parsed(config({"record_id": ambiguous}))


def test_every_problem_gets_a_line(config: Compose) -> None:
    wrong = config({"data.batch_size": 0, "limit": -1, "seed": "x", "model.in_chans": 0})
    with pytest.raises(ConfigError) as error:
        parse(wrong)
    keys = {line.partition("=")[0] for line in str(error.value).splitlines()}
    assert keys == {"data.batch_size", "limit", "seed", "model.in_chans"}


@pytest.mark.parametrize("option", ["workers", "threads_per_worker"])
def test_there_is_at_least_one_of_each(config: Compose, option: str) -> None:
    with pytest.raises(ConfigError, match=rf"cluster\.{option}=0: must be 1 or more"):
        known(config({f"cluster.{option}": 0}))
    with pytest.raises(ConfigError, match=rf"cluster\.{option}=many: "):
        known(config({f"cluster.{option}": "many"}))


@pytest.mark.parametrize("section", ["model", "cluster"])
def test_the_nearest_option_of_the_same_section_is_named(config: Compose, section: str) -> None:
    names = {"model": ("num_clases", "num_classes"), "cluster": ("wrokers", "workers")}
    wrong, right = names[section]
    with pytest.raises(ConfigError, match=rf"{section}\.{wrong}: .* Did you mean {right}\?"):
        built(config({f"{section}.{wrong}": 1}))


@pytest.mark.parametrize("target", ["artifactgen.data.hdf.Hdf5", "json.loads", "nodots", "os.path"])
def test_a_class_that_cannot_be_used_is_named(config: Compose, target: str) -> None:
    with pytest.raises(ConfigError, match=rf"data\._target_={target}: "):
        known(config({"data._target_": target}))


@pytest.mark.parametrize("section", ["model", "cluster", "embeddings", "pages.overview"])
def test_a_class_of_another_seam_is_refused(config: Compose, section: str) -> None:
    wrong = {f"{section}._target_": "artifactgen.data.hdf5.Hdf5"}
    with pytest.raises(ConfigError, match=rf"{section}\._target_=.*: is no subclass of "):
        built(config(wrong))


def test_a_users_own_kind_is_any_section_with_a_class(config: Compose) -> None:
    own = {"_target_": "artifactgen.artifacts.embedding.Embedding", "pooling": "mean"}
    _, kinds = parse(config({"second": own, "generate_second": False}))
    assert not kinds["second"].wanted
    assert kinds["second"].options == {"pooling": "mean"}
    assert kinds["embeddings"].wanted


def test_the_job_of_a_configuration(config: Compose) -> None:
    wanted = config({"splits": ["val", "train", "val"], "model.mean": [0.1, 0.2, 0.3]})
    inputs, job = known(wanted), built(wanted)
    assert list(job.catalog.splits) == ["val", "train"]
    assert inputs.all_splits == ("train", "val", "test")
    assert inputs.absent_splits == ()
    assert job.classes == CLASSES
    assert job.source.image_size == (IMAGE_SIZE, IMAGE_SIZE)
    assert job.normalization.mean == (0.1, 0.2, 0.3)
    assert not job.normalization.of_floats
    assert job.output_dir.is_absolute()
    assert built(config({"data.mean": [0.5], "data.std": [0.5]})).normalization.of_floats


class Rows:
    def __len__(self) -> int:
        return 1

    def record_ids(self, start: int, stop: int) -> list[str]:
        return ["a"][start:stop]


def catalog(*splits: str, classes: tuple[str, ...] = (), channels: int = 3) -> Catalog:
    return Catalog({name: Rows() for name in splits}, classes, channels, "identity")


def test_splits_that_are_absent_are_told_or_refused() -> None:
    usual = ["train", "val", "test"]
    assert choose_splits(usual, catalog("test", "train")) == (("train", "test"), ("val",))
    assert choose_splits(["extra"], catalog("extra")) == (("extra",), ())
    with pytest.raises(DataError, match=r"no extar\. Did you mean extra\?"):
        choose_splits(["extar"], catalog("train", "extra"))
    with pytest.raises(DataError, match=r"has none of them\. It has: extra"):
        choose_splits(usual, catalog("extra"))
    assert usual_order(catalog("a", "test", "train")) == ("train", "test", "a")


def test_class_names_are_the_datas_only_where_they_are_as_many() -> None:
    assert class_names(2, catalog(classes=("a", "b"))) == ("a", "b")
    assert class_names(3, catalog(classes=("a", "b"))) == ("0", "1", "2")
    assert class_names(0, catalog(classes=("a", "b"))) == ()


def test_channels_of_data_and_model_must_agree(config: Compose, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "five.h5", "w") as file:
        file["images"] = np.zeros((3, 5, IMAGE_SIZE, IMAGE_SIZE), dtype=np.uint8)
    with pytest.raises(
        ConfigError, match=r"5 channels and the model takes 3.\nSet model.in_chans=5"
    ):
        known(config({"data.path": str(tmp_path / "five.h5")}))
    with pytest.raises(ConfigError, match=r"data\.mean has 2 values"):
        built(config({"data.mean": [0.1, 0.2]}))


@pytest.mark.parametrize(
    "changes",
    [
        {"data.batch_size": 3},
        {"data.image_size": [64, 64], "data.mean": [0.5]},
        {"data.std": [0.5]},
        {"data.classes": ["x", "y", "z"]},
        {"model.std": [0.5]},
        {"precision": "bf16-mixed"},
        {"embeddings.pooling": "mean"},
        {"gradcam.target_classes": [1]},
        {"gradcam.layer": "blocks.4.norm1"},
        {"gradcam.opacity": 0.5},
        {"attention.layers": [0]},
        {"generate_attention": False},
        {"save_maps": True},
        {"limit": 3},
        {"ckpt_path": "b.ckpt"},
    ],
    ids=str,
)
def test_the_fingerprint_knows_what_decides_the_bytes(
    config: Compose, shared: Path, changes: dict[str, Any]
) -> None:
    if "ckpt_path" in changes:
        changes = {"ckpt_path": str(shared / "b.ckpt")}
    assert known(config(changes)).fingerprint != known(config()).fingerprint


def test_the_fingerprint_knows_nothing_of_places_and_workers(
    config: Compose, shared: Path, tmp_path: Path
) -> None:
    for name in ("images.h5", "a.ckpt"):
        (tmp_path / name).write_bytes((shared / name).read_bytes())
    elsewhere = config(
        {
            "data.path": str(tmp_path / "images.h5"),
            "ckpt_path": str(tmp_path / "a.ckpt"),
            "output_dir": str(tmp_path / "out"),
            "data.num_workers": 1,
            "cluster._target_": "distributed.runners.ray.Ray",
            "cluster.workers": 7,
            "cluster.threads_per_worker": 3,
            "splits": ["val"],
            "record_id": "val_001",
            "max_failures": 0.5,
            "overwrite": True,
            "experiment_name": "other",
        }
    )
    assert known(elsewhere).fingerprint == known(config()).fingerprint


@pytest.mark.parametrize(
    ("given", "prepared"),
    [
        (["debug=true"], ['debug="true"']),
        (["debug=False"], ['debug="false"']),
        (["a=1", "-m"], ["-m", "a=1", "hydra.job.config.override_dirname.exclude_keys=[a]"]),
        (["a=1", "--config-dir", "conf", "~b"], ["--config-dir", "conf", "a=1", "~b"]),
        (["ckpt_path=epoch=1.ckpt"], ['ckpt_path="epoch=1.ckpt"']),
        (["ckpt_path='epoch=1.ckpt'"], ["ckpt_path='epoch=1.ckpt'"]),
        (["ckpt_path=a.ckpt"], ["ckpt_path=a.ckpt"]),
        (["data.classes={a: b=c}"], ["data.classes={a: b=c}"]),
        (["data.path=a-{0..9}.tar"], ['data.path="a-{0..9}.tar"']),
        (["data.val={a,b}.tar"], ['data.val="{a,b}.tar"']),
        (["data.path=${paths.data_dir}/a.h5"], ["data.path=${paths.data_dir}/a.h5"]),
        (["data.path='a-{0..9}.tar'"], ["data.path='a-{0..9}.tar'"]),
        ([LAUNCHER], [LAUNCHER, "cluster=slurm"]),
        ([LAUNCHER, "cluster=inline"], [LAUNCHER, "cluster=inline"]),
        ([LAUNCHER, "cluster.jobs=8"], [LAUNCHER, "cluster.jobs=8", "cluster=slurm"]),
        (
            ["hydra.launcher.time=1:30:00", "--config-dir", "conf", LAUNCHER],
            [
                *("--config-dir", "conf", "++hydra.launcher.time=1:30:00", LAUNCHER),
                "cluster=slurm",
            ],
        ),
        (
            ["-m", "ckpt_path=a,b", LAUNCHER],
            [
                *("-m", "ckpt_path=a,b", LAUNCHER, "cluster=slurm"),
                "hydra.job.config.override_dirname.exclude_keys=[hydra/launcher,cluster]",
            ],
        ),
    ],
)
def test_arguments_as_hydra_needs_them(given: list[str], prepared: list[str]) -> None:
    assert prepare(given) == prepared
