"""What a checkpoint says of its model: read, compared with the settings, taken where none is."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from omegaconf import OmegaConf
from torch import Tensor

from artifactgen.errors import CheckpointError
from artifactgen.models import building, matching
from artifactgen.models.base import Family, Network
from artifactgen.models.checkpoint import read_checkpoint
from artifactgen.models.file import identify
from artifactgen.models.loading import LoadedModel, load_model
from artifactgen.models.stated import Stated, read_stated
from artifactgen.models.timm import Timm

VIT = {"embed_dim": 48, "depth": 2, "num_heads": 3, "patch_size": 8, "img_size": 32}
OPTIONS = {"embed_dim": 48, "depth": 2, "patch_size": 8}
NAME = "vit_tiny_patch16_224"


def vit(**options: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = timm.create_model(NAME, **{"num_classes": 4, **VIT, **options})
    return dict(model.state_dict())


def stated(folder: Path, content: dict[str, Any], config: Any = None) -> Stated:
    torch.save({"state_dict": {"a.weight": torch.ones(2)}, **content}, folder / "last.ckpt")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return read_stated(read_checkpoint(identify(folder / "last.ckpt")), Timm())


def load(
    folder: Path, state: dict[str, Tensor], family: Timm, *, config: Any = None, **content: Any
) -> LoadedModel:
    torch.save({"state_dict": state, **content}, folder / "last.ckpt")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config), "utf-8")
    checkpoint = read_checkpoint(identify(folder / "last.ckpt"))
    return load_model(family, checkpoint, stated=read_stated(checkpoint, family))


def heads(loaded: LoadedModel) -> int:
    blocks: Any = loaded.network.module.blocks
    return int(blocks[0].attn.num_heads)


# Reading.

NORMALISED = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.mark.parametrize(
    "hyper_parameters",
    [
        {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]},
        {"image_mean": (0.1, 0.2, 0.3), "image_std": (0.4, 0.5, 0.6)},
        {"data": {"normalize": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}},
        {"pixel_mean": [25.5, 51, 76.5], "pixel_std": [102.0, 127.5, 153]},
        OmegaConf.create({"data": {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}}),
    ],
)
def test_mean_and_std(tmp_path: Path, hyper_parameters: Any) -> None:
    found = stated(tmp_path, {"hyper_parameters": hyper_parameters})
    assert found.mean == pytest.approx(NORMALISED[0])
    assert found.std == pytest.approx(NORMALISED[1])
    assert found.source["mean"].startswith("hyper_parameters.")


@pytest.mark.parametrize(
    "hyper_parameters",
    [
        {"mean": 0.5},
        {"mean": [0.5, 0.5], "std": [0.5]},
        {"mean": [], "std": []},
        {"mean": [0.5], "std": [0.0]},
        {"mean": [float("nan")], "std": [1.0]},
        {"mean": ["0.5"], "std": [0.5]},
        {"mean": 7.0, "std": 0.5},
        {"optimizer": {"mean": [0.5], "std": [0.5]}},
        {"a": {"mean": [0.5], "std": [0.5]}, "mean": None, "std": None},
        {"model": {"mean": 0, "std": 0.02}},
        {"model": {"mean": 0.0, "std": 0.5}},
        {"mean": 0.0, "std": 0.02},
    ],
)
def test_what_is_no_mean_and_std(tmp_path: Path, hyper_parameters: Any) -> None:
    found = stated(tmp_path, {"hyper_parameters": hyper_parameters})
    assert (found.mean, found.std) == (None, None)


@pytest.mark.parametrize(
    ("key", "value", "size"),
    [
        ("image_size", 96, (96, 96)),
        ("img_size", [96, 128], (96, 128)),
        ("input_size", (3, 96, 128), (96, 128)),
        ("image_size", 0, None),
        ("image_size", 96.5, None),
        ("image_size", True, None),
        ("image_size", "96", None),
        ("image_size", [96, 96, 96, 96], None),
        ("image_size", 10**9, None),
        ("input_size", 96, (96, 96)),
        ("resolution", 96, None),
        ("data", {"resolution": 96}, (96, 96)),
        ("model", {"input_size": 784}, None),
        ("model", {"input_size": [3, 96, 128]}, (96, 128)),
    ],
)
def test_image_sizes(tmp_path: Path, key: str, value: Any, size: Any) -> None:
    assert stated(tmp_path, {"hyper_parameters": {key: value}}).image_size == size


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("class_names", ["cat", "dog"]),
        ("classes", ("cat", "dog")),
        ("id2label", {0: "cat", 1: "dog"}),
        ("id2label", {"1": "dog", "0": "cat"}),
        ("class_to_idx", {"dog": 1, "cat": 0}),
    ],
)
def test_names_of_classes(tmp_path: Path, key: str, value: Any) -> None:
    assert stated(tmp_path, {key: value}).classes == ("cat", "dog")
    assert stated(tmp_path, {"hyper_parameters": {key: value}}).classes == ("cat", "dog")


@pytest.mark.parametrize(
    "value",
    [
        {0: "LABEL_0", 1: "LABEL_1"},
        {"LABEL_1": 1, "LABEL_0": 0},
        ["0", "1", "2"],
        ["1", "2", "3"],
    ],
)
def test_names_that_only_count_are_none(tmp_path: Path, value: Any) -> None:
    assert stated(tmp_path, {"id2label": value}).classes == ()


def test_numbers_in_another_order_are_names(tmp_path: Path) -> None:
    """Of folders that are called by numbers, sorted as texts."""
    names = {"1": 0, "10": 1, "2": 2}
    assert stated(tmp_path, {"class_to_idx": names}).classes == ("1", "10", "2")


def test_labels_of_a_model_could_be_anything(tmp_path: Path) -> None:
    said = {"labels": ["cat", "dog"]}
    assert stated(tmp_path, {"hyper_parameters": said}).classes == ("cat", "dog")
    assert stated(tmp_path, {"hyper_parameters": {"model": said}}).classes == ()


@pytest.mark.parametrize("value", [["cat", "cat"], [1, 2], {"0": "cat", "2": "dog"}, "cat", 2, []])
def test_what_is_no_list_of_classes(tmp_path: Path, value: Any) -> None:
    assert stated(tmp_path, {"hyper_parameters": {"classes": value}}).classes == ()


def test_the_place_next_to_the_model_goes_first(tmp_path: Path) -> None:
    """A data set is resized before it is cropped to what the model takes."""
    hyper_parameters = {"data": {"image_size": 256}, "model": {"img_size": 224}, "num_classes": 3}
    found = stated(tmp_path, {"hyper_parameters": hyper_parameters})
    assert (found.image_size, found.num_classes) == ((224, 224), 3)
    assert found.source["image_size"] == "hyper_parameters.model.img_size"


def test_places_that_are_as_near_and_disagree_are_not_believed(tmp_path: Path) -> None:
    hyper_parameters = {"model": {"img_size": 224}, "backbone": {"img_size": 96}}
    assert stated(tmp_path, {"hyper_parameters": hyper_parameters}).image_size is None


def test_a_config_of_timm_beside_the_file(tmp_path: Path) -> None:
    config = {
        "architecture": "resnet18",
        "num_classes": 2,
        "label_names": ["cat", "dog"],
        "model_args": {"output_stride": 16},
        "pretrained_cfg": {
            "mean": [0.1, 0.2, 0.3],
            "std": [0.4, 0.5, 0.6],
            "input_size": [3, 96, 96],
            "num_classes": 1000,
        },
    }
    found = stated(tmp_path, {}, config)
    assert (found.mean, found.std) == NORMALISED
    assert (found.image_size, found.num_classes) == ((96, 96), 2)
    assert found.classes == ("cat", "dog")
    assert found.architectures[0].value == "resnet18"
    assert found.options["output_stride"].value == 16
    assert found.source["mean"] == "config.json: pretrained_cfg.mean"


@pytest.mark.parametrize("content", ["", "[1]", '{"mean": [0.5], "std": [0.5]}', "{", "[" * 100000])
def test_another_config_beside_the_file_is_none_of_ours(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content, "utf-8")
    assert stated(tmp_path, {}) == Stated()


def test_the_file_goes_before_its_neighbour(tmp_path: Path) -> None:
    config = {"architecture": "resnet18", "num_classes": 7, "image_size": 64}
    found = stated(tmp_path, {"hyper_parameters": {"num_classes": 4}}, config)
    assert (found.num_classes, found.image_size) == (4, (64, 64))


# A config beside the file that is of another model.


def config_of(architecture: str, **more: Any) -> dict[str, Any]:
    return {"architecture": architecture, **more}


SMALL = config_of("vit_small_patch16_224", model_args={"num_heads": 6})


def test_heads_of_another_model_are_left_aside(tmp_path: Path) -> None:
    """6 heads, and other maps, without a word."""
    state = timm.create_model(NAME, num_classes=4, depth=1).state_dict()
    loaded = load(tmp_path, state, Timm(backbone=NAME, options={"depth": 1}), config=SMALL)
    assert heads(loaded) == 3
    assert loaded.audit.taken == ()
    assert "config.json beside it is of vit_small_patch16_224, left aside" in loaded.audit.summary()


def test_the_file_tells_which_model_its_neighbour_has_to_be_of(tmp_path: Path) -> None:
    loaded = load(tmp_path, vit(), Timm(), config=SMALL, hyper_parameters={"arch": NAME, **VIT})
    assert heads(loaded) == 3
    assert loaded.audit.aside == "vit_small_patch16_224"
    config = config_of(f"{NAME}.augreg_in21k", model_args=VIT)
    loaded = load(tmp_path, vit(), Timm(), config=config, hyper_parameters={"arch": NAME})
    assert heads(loaded) == 3
    assert loaded.audit.aside == ""


@pytest.mark.parametrize(
    ("config", "of"),
    [
        (
            config_of(
                "vit_small_patch14_dinov2",
                pretrained_cfg={"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, 518, 518]},
            ),
            "vit_small_patch14_dinov2",
        ),
        ({"model_type": "dinov2", "image_size": 518}, "dinov2"),
        ({"architectures": ["Dinov2Model"], "image_size": 518}, "Dinov2Model"),
        ({"architectures": 5, "image_size": 518}, "a model that it does not name"),
        ({"id2label": {"0": "cat", "1": "dog"}}, "a model that it does not name"),
    ],
)
def test_what_weights_cannot_refute_is_not_taken_from_another_model(
    tmp_path: Path, config: Any, of: str
) -> None:
    """Mean, std, names, and a CNN's image size."""
    state = timm.create_model("test_resnet", num_classes=2).state_dict()
    loaded = load(tmp_path, state, Timm(backbone="test_resnet"), config=config)
    assert loaded.stated == Stated(aside=of)
    assert loaded.network.family.image_size == Timm(backbone="test_resnet").input_size()
    assert f"config.json beside it is of {of}, left aside" in loaded.audit.summary()


def test_a_number_of_classes_of_another_model_hides_no_head(tmp_path: Path) -> None:
    state = {f"net.{k}": v for k, v in vit(num_classes=0).items()}
    state |= {"head.weight": torch.ones(5, 48)}
    family = Timm(backbone=NAME, options={**OPTIONS, "num_heads": 3}, image_size=(32, 32))
    for architecture in ("resnet18", NAME):
        loaded = load(tmp_path, state, family, config=config_of(architecture, num_classes=1000))
        assert loaded.audit.head_from.startswith("head (Linear 48 → 5)")
    assert loaded.audit.refuted == ("num_classes 1000 (config.json: num_classes)",)


def test_a_config_of_a_model_that_did_not_fit_still_advises(tmp_path: Path) -> None:
    state = timm.create_model("resnet18", num_classes=2).state_dict()
    with pytest.raises(CheckpointError, match=r"says that it is a resnet18 \(config.json: arch"):
        load(tmp_path, state, Timm(backbone=NAME), config=config_of("resnet18"))


# Taking what is not set.


def test_an_activation_leaves_no_trace_and_is_taken(tmp_path: Path) -> None:
    said = {"backbone": NAME, **VIT, "act_layer": "relu", "norm_layer": "layernorm"}
    loaded = load(tmp_path, vit(act_layer="relu"), Timm(), hyper_parameters=said)
    blocks: Any = loaded.network.module.blocks
    assert isinstance(blocks[0].mlp.act, torch.nn.ReLU)
    assert "act_layer relu (hyper_parameters.act_layer)" in loaded.audit.taken
    set_ = Timm(backbone=NAME, options={**OPTIONS, "num_heads": 3, "act_layer": "gelu"})
    (warning,) = load(tmp_path, vit(), set_, hyper_parameters=said).warnings
    assert "act_layer is relu, and model.options.act_layer=gelu is used" in warning


@pytest.mark.parametrize("value", ["torch.nn.ReLU", "", None, 3, ["relu"]])
def test_what_timm_does_not_take_for_an_activation(tmp_path: Path, value: Any) -> None:
    said = {"backbone": NAME, **VIT, "act_layer": value}
    loaded = load(tmp_path, vit(), Timm(), hyper_parameters=said)
    assert "act_layer" not in loaded.network.family.options


@pytest.mark.parametrize(
    "hyper_parameters",
    [
        {"backbone": NAME, **VIT},
        {"model_name": NAME, **VIT},
        {"model": {"name": NAME, **VIT}},
        {"model": NAME, "model_kwargs": VIT},
        {"net": {"_target_": "timm.create_model", "model_name": NAME, **VIT}},
        {"cfg": {"encoder": {"timm_name": f"timm/{NAME}.augreg_in21k", **VIT}}},
        argparse.Namespace(arch=NAME, **VIT),
        OmegaConf.create({"net": {"model_name": NAME, **VIT}, "optimizer": {"name": "adamw"}}),
    ],
)
def test_architecture_and_options_are_taken(tmp_path: Path, hyper_parameters: Any) -> None:
    loaded = load(tmp_path, vit(), Timm(), hyper_parameters=hyper_parameters)
    assert loaded.network.family.name.startswith(NAME)
    assert heads(loaded) == 3
    assert loaded.network.family.image_size == (32, 32)
    assert loaded.warnings == ()
    told = loaded.audit.summary()
    assert "stated in the checkpoint and taken: backbone vit_tiny_patch16_224" in told
    assert "num_heads 3 (hyper_parameters." in told


def test_a_checkpoint_of_timms_own_training(tmp_path: Path) -> None:
    args = argparse.Namespace(
        **{
            "model": NAME,
            "num_classes": 4,
            "img_size": 32,
            "mean": [0.1],
            "std": [0.4],
            "gp": None,
        },
        model_kwargs={**VIT, "drop_path_rate": 0.1},
    )
    loaded = load(tmp_path, vit(), Timm(), arch=NAME, args=args)
    assert heads(loaded) == 3
    assert loaded.stated.mean == (0.1,)
    assert "drop_path_rate" not in loaded.network.family.options


def test_the_hyper_parameters_of_a_config_beside_the_file(tmp_path: Path) -> None:
    config = {
        "architecture": NAME,
        "model_args": VIT,
        "pretrained_cfg": {"input_size": [3, 32, 32]},
    }
    loaded = load(tmp_path, vit(), Timm(), config=config)
    assert heads(loaded) == 3
    assert "num_heads 3 (config.json: model_args.num_heads)" in loaded.audit.taken


def test_a_pooling_that_is_stated_is_taken(tmp_path: Path) -> None:
    """It leaves no trace in weights where the norm stands before it."""
    state = vit(global_pool="avg", fc_norm=False)
    said = {"backbone": NAME, **VIT, "global_pool": "avg", "fc_norm": False}
    loaded = load(tmp_path, state, Timm(), hyper_parameters=said)
    assert loaded.network.module.global_pool == "avg"
    silent = Timm(backbone=NAME, options={**OPTIONS, "num_heads": 3}, image_size=(32, 32))
    assert load(tmp_path, state, silent).network.module.global_pool == "token"


def test_what_was_decided_needs_no_words_any_more(tmp_path: Path) -> None:
    """A worker builds the same model, whatever lies beside the file by then."""
    loaded = load(tmp_path, vit(), Timm(), hyper_parameters={"backbone": NAME, **VIT})
    checkpoint = read_checkpoint(identify(tmp_path / "last.ckpt"))
    again = load_model(loaded.network.family, checkpoint)
    assert again.network.family == loaded.network.family
    assert heads(again) == 3


def test_names_of_classes_are_only_for_as_many_outputs(tmp_path: Path) -> None:
    said = {"backbone": NAME, **VIT, "classes": ["a", "b", "c", "d"]}
    loaded = load(tmp_path, vit(), Timm(), hyper_parameters=said)
    assert loaded.stated.classes == ("a", "b", "c", "d")
    loaded = load(tmp_path, vit(), Timm(), hyper_parameters={**said, "classes": ["a", "b"]})
    assert loaded.stated.classes == ()


def test_a_number_of_classes_tells_which_head(tmp_path: Path) -> None:
    state = {f"net.{k}": v for k, v in vit(num_classes=0).items() if "head" not in k}
    state |= {"one.weight": torch.ones(5, 48), "two.weight": torch.ones(4, 48)}
    said = {"backbone": NAME, **VIT, "num_classes": 4}
    assert "two (Linear 48 → 4)" in (
        load(tmp_path, state, Timm(), hyper_parameters=said).audit.head_from
    )


# The weights are the judge.


def test_what_the_weights_do_not_fit_is_not_taken(tmp_path: Path) -> None:
    said = {"backbone": NAME, **VIT, "depth": 12, "image_size": 256, "img_size": None}
    family = Timm(image_size=(32, 32), options={"depth": 2})
    loaded = load(tmp_path, vit(), family, hyper_parameters=said)
    assert heads(loaded) == 3
    assert loaded.warnings == ()
    loaded = load(tmp_path, vit(), Timm(options={"depth": 2}), hyper_parameters={**said, **VIT})
    assert heads(loaded) == 3


def test_one_wrong_word_does_not_cost_the_others(tmp_path: Path) -> None:
    said = {"backbone": NAME, **VIT, "depth": 12}
    loaded = load(tmp_path, vit(), Timm(options={"depth": 2}), hyper_parameters=said)
    assert heads(loaded) == 3
    state = timm.create_model("resnet18", num_classes=4).state_dict()
    said = {"backbone": "resnet18", "layers": [9, 9, 9, 9], "output_stride": 16, "cardinality": 7}
    loaded = load(tmp_path, state, Timm(), hyper_parameters=said)
    assert loaded.network.family.options == {"output_stride": 16}
    assert "layers [9,9,9,9] (hyper_parameters.layers)" in loaded.audit.refuted
    assert "its weights do not fit it: layers [9,9,9,9]" in loaded.audit.summary()


def test_two_architectures_are_none(tmp_path: Path) -> None:
    said = {"backbone": NAME, "encoder": "resnet18", **VIT}
    with pytest.raises(CheckpointError, match=r"model\.backbone is not set(.|\n)*looks like a ViT"):
        load(tmp_path, vit(), Timm(), hyper_parameters=said)


def test_another_architecture_in_the_file_is_said_and_its_options_are_not_taken(
    tmp_path: Path,
) -> None:
    state = timm.create_model(NAME, num_classes=4, depth=1).state_dict()
    said = {"backbone": "vit_small_patch16_224", "num_heads": 6, "mean": [0.5], "std": [0.5]}
    family = Timm(backbone=NAME, options={"depth": 1})
    loaded = load(tmp_path, state, family, hyper_parameters=said)
    assert heads(loaded) == 3
    assert loaded.warnings == ()
    assert loaded.stated.mean == (0.5,)
    assert loaded.audit.refuted == (
        "backbone vit_small_patch16_224 (hyper_parameters.backbone)",
        "num_heads 6 (hyper_parameters.num_heads)",
    )


def test_what_is_set_and_refutes_what_is_stated_is_said(tmp_path: Path) -> None:
    said = {"backbone": NAME, **VIT, "depth": 12, "classes": ["a", "b"]}
    loaded = load(tmp_path, vit(), Timm(options={"depth": 2}), hyper_parameters=said)
    assert loaded.audit.refuted == (
        "depth 12 (hyper_parameters.depth)",
        "names of 2 classes (hyper_parameters.classes)",
    )


def test_claims_that_need_each_other_are_taken_beside_a_wrong_one(tmp_path: Path) -> None:
    """A width of 64 cannot be built with the 3 heads of the name."""
    options = {"embed_dim": 64, "num_heads": 4}
    said = {"backbone": NAME, **VIT, **options, "qkv_bias": False}
    loaded = load(tmp_path, vit(**options), Timm(), hyper_parameters=said)
    assert heads(loaded) == 4
    assert loaded.audit.refuted == ("qkv_bias false (hyper_parameters.qkv_bias)",)


def test_a_wrong_width_does_not_hide_the_head_that_is_named(tmp_path: Path) -> None:
    """None of that width is there."""
    encoder = timm.create_model(NAME, num_classes=0, depth=1).state_dict()
    state = {**{f"net.{k}": v for k, v in encoder.items()}, "head.weight": torch.ones(5, 192)}
    family = Timm(head="head", options={"depth": 1})
    said = {"backbone": NAME, "embed_dim": 96}
    loaded = load(tmp_path, state, family, hyper_parameters=said)
    assert loaded.audit.head_from.startswith("head (Linear 192 → 5)")
    assert loaded.audit.refuted == ("embed_dim 96 (hyper_parameters.embed_dim)",)


@pytest.mark.parametrize("wrong", [{"qkv_bias": False}, {"qk_norm": True}, {}])
def test_how_often_a_model_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, Any]
) -> None:
    """As a draft and as decided; where not all that is stated fits, once for each of it as well."""
    said = {"backbone": NAME, **VIT, "fc_norm": False, **wrong}
    builds: list[Family] = []

    def counted(family: Family) -> Network:
        builds.append(family)
        return building.built(family)

    monkeypatch.setattr(matching, "built", counted)
    loaded = load(tmp_path, vit(), Timm(), hyper_parameters=said)
    assert (heads(loaded), len(loaded.audit.refuted)) == (3, len(wrong))
    assert len(loaded.audit.taken) + len(loaded.audit.refuted) == len(said)
    assert len(builds) == (2 + len(said) + 2 if wrong else 2)
    builds.clear()
    other = timm.create_model("resnet18", num_classes=4).state_dict()
    with pytest.raises(CheckpointError, match="does not fit"):
        load(tmp_path, other, Timm(), hyper_parameters=said)
    assert len(builds) == 2 + len(said) + 2 + 1, "and once as the model that fits"


# Contradictions.


def test_heads_leave_no_trace_and_the_contradiction_is_said(tmp_path: Path) -> None:
    """They were 3, and 4 had been asked for: 100 % of the encoder, and other maps and classes."""
    family = Timm(backbone=NAME, options={**OPTIONS, "num_heads": 4}, image_size=(32, 32))
    loaded = load(tmp_path, vit(), family, hyper_parameters={"backbone": NAME, **VIT})
    assert heads(loaded) == 4, "what is set wins"
    assert loaded.warnings == (
        f"{tmp_path / 'last.ckpt'}: hyper_parameters.num_heads is 3, and "
        "model.options.num_heads=4 is used. The weights fit both, and the results differ: "
        "set model.options.num_heads=3 unless you know better.",
    )


def test_another_architecture_with_the_same_weights_is_said_where_it_matters(
    tmp_path: Path,
) -> None:
    """TensorFlow's pads otherwise; DeiT's is but another name of the same ViT."""
    state = timm.create_model("deit_tiny_patch16_224", num_classes=4).state_dict()
    family = Timm(backbone=NAME)
    loaded = load(tmp_path, state, family, arch="vit_tiny_r_s16_p8_224")
    assert loaded.warnings == (), "the weights are not of that one"
    assert load(tmp_path, state, family, arch="deit_tiny_patch16_224").warnings == ()
    state = timm.create_model("tf_efficientnet_b0", num_classes=4).state_dict()
    family = Timm(backbone="efficientnet_b0")
    (warning,) = load(tmp_path, state, family, arch="tf_efficientnet_b0").warnings
    assert "arch is tf_efficientnet_b0, and model.backbone=efficientnet_b0 is used" in warning


def test_an_image_size_that_leaves_no_trace_is_said(tmp_path: Path) -> None:
    state = timm.create_model("test_resnet", num_classes=4).state_dict()
    family = Timm(backbone="test_resnet", image_size=(64, 64))
    (warning,) = load(tmp_path, state, family, hyper_parameters={"image_size": 96}).warnings
    assert "hyper_parameters.image_size is [96,96], and data.image_size=[64,64] is used" in warning
    assert load(tmp_path, state, family, hyper_parameters={"image_size": 64}).warnings == ()


def test_a_training_that_pooled_by_itself_is_said(tmp_path: Path) -> None:
    said = {"backbone": NAME, **VIT, "global_pool": ""}
    loaded = load(tmp_path, vit(global_pool=""), Timm(), hyper_parameters=said)
    (warning,) = loaded.warnings
    assert "hyper_parameters.global_pool is '', and model.global_pool=token is used" in warning
    assert "pooled by itself" in warning


@pytest.mark.parametrize("same", [{"num_heads": 3}, {"depth": 2.0}, {"patch_size": [8, 8]}, {}])
def test_what_agrees_is_not_a_contradiction(tmp_path: Path, same: dict[str, Any]) -> None:
    family = Timm(backbone=NAME, options={**OPTIONS, "num_heads": 3}, image_size=(32, 32))
    said = {"backbone": f"{NAME}.augreg_in21k", **VIT, **same, "lr": 0.1, "dropout": 0.2}
    assert load(tmp_path, vit(), family, hyper_parameters=said).warnings == ()


# What is not set and not stated.


def test_no_architecture_at_all_says_what_it_looks_like(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path, vit(), Timm(), hyper_parameters={"num_heads": 3})
    assert str(caught.value) == (
        f"{tmp_path / 'last.ckpt'}: model.backbone is not set, and the checkpoint does not state "
        "it.\nIt looks like a ViT with width 48, 2 blocks, patch 8: set "
        "model.backbone=vit_base_patch8_224 "
        "'model.options={embed_dim: 48, depth: 2, num_heads: 3}' data.image_size=[32,32]."
    )


def test_nothing_of_a_file_is_resolved_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKBONE", NAME)
    said = OmegaConf.create({"backbone": "${oc.env:BACKBONE}"})
    found = stated(tmp_path, {"hyper_parameters": said})
    assert found.architectures[0].value == "${oc.env:BACKBONE}"


def test_deep_nesting_ends(tmp_path: Path) -> None:
    deep: dict[str, Any] = {"num_classes": 3}
    for _ in range(min(200, sys.getrecursionlimit() // 4)):
        deep = {"model": deep}
    assert stated(tmp_path, {"hyper_parameters": deep}).num_classes is None
