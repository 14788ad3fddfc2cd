"""Specs: names, settings and what timm tells of a model before it is built."""

import pickle

import pytest
import torch

from artifactgen.errors import ConfigError
from artifactgen.models.timm import Timm
from artifactgen.models.timm_build import RESERVED_OPTIONS, resolve_backbone


@pytest.mark.parametrize(
    ("name", "resolved"),
    [
        ("vit_base_patch16", "vit_base_patch16_224"),
        ("vit_huge_patch14", "vit_huge_patch14_224"),
        ("vit_base_patch16.mae", "vit_base_patch16_224.mae"),
        ("vit_base_patch16_384", "vit_base_patch16_384"),
        ("resnet18", "resnet18"),
        ("test_vit.r160_in1k", "test_vit.r160_in1k"),
    ],
)
def test_backbone_names(name, resolved):
    assert resolve_backbone(name) == resolved


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("vit_base_path16_224", "vit_base_patch16_224"),
        ("resnet18.a1_in1", "a1_in1k"),
        ("hf-hub:somebody/model", "no such model"),
        ("", "no such model"),
    ],
)
def test_an_unknown_backbone_names_the_nearest(name, hint):
    with pytest.raises(ConfigError, match=hint):
        resolve_backbone(name)


def test_a_built_model_is_frozen_and_in_eval_mode():
    model = Timm(backbone="test_vit", num_classes=3).build().module
    assert not model.training
    assert all(not p.requires_grad and p.dtype == torch.float32 for p in model.parameters())
    assert model(torch.zeros(1, 3, 160, 160)).shape == (1, 3)


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet", "test_convnext"])
def test_no_classes_means_no_head(backbone):
    model = Timm(backbone=backbone, num_classes=0).build().module
    classifier = model.pretrained_cfg["classifier"]
    assert not any(name.startswith(f"{classifier}.") for name in model.state_dict())


@pytest.mark.parametrize(
    "backbone", ["test_vit", "test_resnet", "test_convnext", "test_efficientnet", "test_byobnet"]
)
@pytest.mark.parametrize("size", [(192, 192), (160, 224)])
def test_any_architecture_takes_an_image_size(backbone, size):
    model = Timm(backbone=backbone, num_classes=2, in_chans=1, image_size=size).build().module
    assert model(torch.zeros(1, 1, *size)).shape == (1, 2)


def test_options_reach_timm():
    model = Timm(backbone="test_vit", options={"patch_size": 32, "depth": 2}).build().module
    assert len(model.blocks) == 2
    assert model.patch_embed.patch_size == (32, 32)


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet", "poolformer_s12"])
@pytest.mark.parametrize("size", [None, (160, 160)])
def test_a_wrong_option_is_named(backbone, size):
    spec = Timm(backbone=backbone, image_size=size, options={"patch_sise": 8})
    with pytest.raises(ConfigError, match=r"model\.options\.patch_sise=8"):
        spec.build()


@pytest.mark.parametrize("option", sorted(RESERVED_OPTIONS))
def test_options_cannot_go_behind_a_setting(option):
    with pytest.raises(ConfigError, match=f"{option} is not free: set {RESERVED_OPTIONS[option]}"):
        Timm(backbone="test_vit", options={option: "x"}).build()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"global_pool": "middle"}, "global_pool=middle"),
        ({"num_classes": -1}, r"model\.num_classes=-1"),
        ({"in_chans": 0}, r"model\.in_chans=0"),
        ({"image_size": (0, 160)}, r"data\.image_size"),
        ({"image_size": (160, 170)}, "not a multiple of test_vit's patch size"),
        ({"options": {"depth": "deep"}}, "depth=deep"),
    ],
)
def test_impossible_settings(settings, message):
    with pytest.raises(ConfigError, match=message):
        Timm(backbone="test_vit", **settings).build()


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
def test_a_type_error_of_another_cause_is_told_as_it_is(backbone):
    spec = Timm(backbone=backbone, image_size=(160, 160), options={"act_layer": 3})
    with pytest.raises(ConfigError, match=r"act_layer=3.*TypeError"):
        spec.build()


def test_input_size_and_normalization_need_no_model():
    assert Timm(backbone="vit_base_patch14_dinov2").input_size() == (518, 518)
    assert Timm(backbone="resnet18", image_size=(64, 96)).input_size() == (64, 96)
    assert Timm(backbone="vit_base_patch16").normalization() == ((0.5,) * 3, (0.5,) * 3)
    assert Timm(backbone="vit_base_patch16.mae").normalization()[0] == (0.485, 0.456, 0.406)


def test_other_channels_get_the_average_of_rgb():
    mean, std = Timm(backbone="resnet18", in_chans=2).normalization()
    assert mean == pytest.approx([0.449, 0.449])
    assert std == pytest.approx([0.226, 0.226])


def test_a_spec_travels():
    spec = Timm(backbone="test_vit", image_size=(32, 32), options={"depth": 1})
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_an_activation_that_timm_does_not_know_is_a_wrong_option() -> None:
    with pytest.raises(ConfigError, match=r"timm cannot build it with .*act_layer=foo"):
        Timm(backbone="test_vit", options={"act_layer": "foo"}).build()
