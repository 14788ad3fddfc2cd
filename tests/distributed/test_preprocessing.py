"""Mean and std: asked for, stated by the checkpoint, or the family's, in this order; and said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from artifactgen.engine import Normalization
from artifactgen.errors import ConfigError
from artifactgen.models.base import Family
from artifactgen.models.huggingface import HuggingFace
from artifactgen.models.mae_vit import MaeViT
from artifactgen.models.module import Module
from artifactgen.models.stated import Stated
from artifactgen.models.timm import Timm
from distributed.preprocessing import build_normalization
from distributed.settings import Settings

FAMILY = Timm(backbone="resnet18")
MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
WHERE = {"mean": "hparams.mean", "std": "hparams.std"}
SAID = Stated(mean=MEAN, std=STD, source=WHERE)
FILE = Path("a.ckpt")


def settings(**options: Any) -> Settings:
    data: dict[str, Any] = {"_target_": "x.Y", "batch_size": 1, "num_workers": 1}
    model: dict[str, Any] = {"_target_": "x.Y"}
    for key, value in options.items():
        section, _, name = key.partition("_")
        (data if section == "data" else model)[name] = value
    return Settings.model_validate(
        {
            "experiment_name": "x",
            "ckpt_path": FILE,
            "output_dir": "out",
            "splits": ["test"],
            "data": data,
            "model": model,
            "cluster": {"_target_": "x.Y"},
        }
    )


def made(said: Stated = SAID, family: Family = FAMILY, **options: Any) -> Normalization:
    return build_normalization(settings(**options), family, said, FILE)


def test_what_is_stated_goes_before_the_familys_own() -> None:
    found = made()
    assert (found.mean, found.std) == (MEAN, STD)
    assert found.stated_in == "hparams.mean, hparams.std"
    assert found.doubts == ()
    assert made(Stated()).mean == FAMILY.normalization()[0]


def test_a_masked_autoencoder_has_imagenets_unless_another_is_stated() -> None:
    family = MaeViT(backbone="vit_base_patch16")
    assert made(Stated(), family).mean == (0.485, 0.456, 0.406)
    assert made(SAID, family).mean == MEAN


def test_a_folder_that_does_not_say_it_is_doubted(tmp_path: Path) -> None:
    """As `model.save_pretrained` writes it, without the processor's."""
    (tmp_path / "config.json").write_text("{}")
    family = HuggingFace(path=str(tmp_path))
    (doubt,) = made(Stated(), family).doubts
    assert "no preprocessor_config.json in it says how images are made ready" in doubt
    assert made(Stated(), family, data_mean=(0.5,)).doubts == ()
    assert made(SAID, family).doubts == ()
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": 0.5, "image_std": 0.5}')
    assert made(Stated(), family).doubts == ()


def test_a_module_of_ones_own_says_nothing_of_it_and_is_doubted() -> None:
    family = Module(target="torch.nn.Identity")
    (doubt,) = made(Stated(), family).doubts
    assert doubt.startswith("Nothing says how the images of Identity are normalised, so ImageNet's")
    assert made(SAID, family).doubts == made(Stated(), family, model_mean=(0.5,)).doubts == ()


def test_the_datas_goes_before_the_models_and_both_before_what_is_stated() -> None:
    found = made(data_mean=(0.7,), model_mean=(0.8,), model_std=(0.9,))
    assert (found.mean, found.std) == ((0.7,), (0.9,))
    assert found.stated_in == ""
    assert found.doubts == (
        "a.ckpt: hparams.mean is [0.1,0.2,0.3], and data.mean=[0.7] is used. "
        "Set data.mean=[0.1,0.2,0.3] unless you know better.",
        "a.ckpt: hparams.std is [0.4,0.5,0.6], and model.std=[0.9] is used. "
        "Set model.std=[0.4,0.5,0.6] unless you know better.",
    )


def test_what_comes_to_the_same_is_no_contradiction() -> None:
    said = Stated(mean=(0.5,), std=(0.5, 0.5, 0.5), source=WHERE)
    assert made(said, data_mean=(0.5, 0.5, 0.5), data_std=(0.5,)).doubts == ()
    assert made(data_mean=(0.1001, 0.2, 0.3), data_std=STD).doubts == ()
    of_bytes = [tuple(255 * value for value in values) for values in (MEAN, STD)]
    assert made(data_mean=of_bytes[0], data_std=of_bytes[1]).doubts == ()


def test_what_is_stated_of_other_channels_is_not_taken() -> None:
    found = made(family=Timm(backbone="resnet18", in_chans=1))
    assert found.stated_in == ""
    assert len(found.mean) == 1
    with pytest.raises(ConfigError, match=r"model\.mean has 2 values"):
        made(model_mean=(0.1, 0.2))


def test_floats_are_normalised_only_where_that_is_asked_for() -> None:
    assert not made().of_floats
    assert made(data_mean=MEAN).of_floats
