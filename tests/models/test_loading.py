"""Loading: every layout fills the whole model exactly, or is refused with the remedy."""

import argparse
import functools
import json

import pytest
import timm
import torch
from omegaconf import OmegaConf
from safetensors.torch import save_file

from artifactgen.errors import CheckpointError, ConfigError
from artifactgen.models.checkpoint import read_checkpoint
from artifactgen.models.file import identify
from artifactgen.models.loading import load_model
from artifactgen.models.timm import Timm


@functools.cache
def trained(backbone, **options):
    """A small model with random weights, statistics and biases, as if it had been trained."""
    torch.manual_seed(0)
    model = timm.create_model(backbone, **options).eval()
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) * 0.1 + 0.05)
    return model


def weights(backbone, **options):
    return dict(trained(backbone, **options).state_dict())


def vit(**options):
    return weights("test_vit", num_classes=4, **options)


def prefixed(state, prefix):
    return {prefix + name: tensor for name, tensor in state.items()}


def others(state):
    return {name: torch.zeros_like(tensor) for name, tensor in state.items()}


def load(folder, payload, spec):
    path = folder / "model.pt"
    torch.save(payload, path)
    return load_model(spec, read_checkpoint(identify(path)))


def assert_exactly(loaded, state):
    own = loaded.network.module.state_dict()
    assert own
    assert all(torch.equal(own[name], state[name]) for name in own)


def refusal(folder, payload, spec):
    with pytest.raises(CheckpointError) as caught:
        load(folder, payload, spec)
    return str(caught.value)


@pytest.mark.parametrize(
    ("backbone", "classifier"),
    [
        ("test_vit", "head"),
        ("test_vit3", "head"),
        ("test_resnet", "fc"),
        ("test_convnext", "head.fc"),
        ("test_efficientnet", "classifier"),
        ("resnet18", "fc"),
        ("convnext_atto", "head.fc"),
    ],
)
def test_round_trip(tmp_path, backbone, classifier):
    state = weights(backbone, num_classes=4)
    loaded = load(tmp_path, state, Timm(backbone=backbone))
    assert_exactly(loaded, state)
    assert loaded.network.family.num_classes == 4
    assert (loaded.has_head, loaded.network.classifiers) == (True, (classifier,))
    assert (loaded.audit.share, loaded.audit.head, loaded.audit.unexpected) == (1, "loaded", ())
    assert not loaded.network.module.training
    assert all(
        not p.requires_grad and p.dtype == torch.float32 for p in loaded.network.module.parameters()
    )


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet", "test_convnext"])
def test_the_model_computes_what_was_trained(tmp_path, backbone):
    original = trained(backbone, num_classes=4)
    loaded = load(tmp_path, original.state_dict(), Timm(backbone=backbone))
    image = torch.rand(2, 3, 160, 160)
    with torch.no_grad():
        assert torch.equal(loaded.network.module(image), original(image))


def test_the_resolved_spec_builds_the_same_model(tmp_path):
    loaded = load(tmp_path, vit(global_pool="avg"), Timm(backbone="test_vit"))
    again = loaded.network.family.build().module.state_dict()
    own = loaded.network.module.state_dict()
    assert {k: v.shape for k, v in again.items()} == {k: v.shape for k, v in own.items()}


def test_loading_takes_no_random_numbers(tmp_path):
    before = torch.random.get_rng_state()
    load(tmp_path, vit(), Timm(backbone="test_vit"))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_fc_norm_means_average_pooling(tmp_path):
    state = vit(global_pool="avg")
    assert "fc_norm.weight" in state
    loaded = load(tmp_path, state, Timm(backbone="test_vit"))
    assert_exactly(loaded, state)
    assert loaded.network.family.global_pool == loaded.network.module.global_pool == "avg"


def test_norm_means_the_default_pooling(tmp_path):
    loaded = load(tmp_path, vit(), Timm(backbone="test_vit"))
    assert loaded.network.family.global_pool == loaded.network.module.global_pool == "token"


def test_both_norms_are_for_the_user_to_decide(tmp_path):
    state = {**vit(global_pool="avg"), "norm.weight": torch.ones(64), "norm.bias": torch.ones(64)}
    message = refusal(tmp_path, state, Timm(backbone="test_vit"))
    assert "fc_norm.weight" in message
    assert "model.global_pool" in message
    loaded = load(tmp_path, state, Timm(backbone="test_vit", global_pool="avg"))
    assert_exactly(loaded, state)


def test_another_pooling_than_trained_is_refused(tmp_path):
    message = refusal(tmp_path, vit(), Timm(backbone="test_vit", global_pool="avg"))
    assert "leave model.global_pool unset" in message


def test_mae_pretraining_has_no_head(tmp_path):
    state = weights("test_vit", num_classes=0)
    decoder = {
        "mask_token": torch.zeros(1, 1, 32),
        "decoder_pos_embed": torch.zeros(1, 101, 32),
        "decoder_embed.weight": torch.zeros(32, 64),
        **{f"decoder_blocks.{i}.norm1.weight": torch.zeros(32) for i in range(8)},
    }
    payload = {"model": {**state, **decoder}, "args": argparse.Namespace(lr=1.0), "epoch": 799}
    loaded = load(tmp_path, payload, Timm(backbone="test_vit", num_classes=5))
    assert_exactly(loaded, state)
    assert (loaded.has_head, loaded.network.family.num_classes) == (False, 0)
    assert loaded.audit.head == "absent"
    assert set(loaded.audit.unexpected) == decoder.keys()
    assert "decoder_blocks.* (8)" in loaded.audit.summary()


def test_a_head_that_is_not_asked_for(tmp_path):
    loaded = load(tmp_path, vit(), Timm(backbone="test_vit", num_classes=0))
    assert (loaded.has_head, loaded.audit.head) == (False, "unused")
    assert "head.weight" not in loaded.network.module.state_dict()


def test_lightning(tmp_path):
    state = vit()
    payload = {
        "state_dict": {**prefixed(state, "model."), "criterion.weight": torch.ones(4)},
        "hyper_parameters": OmegaConf.create({"lr": 1e-3, "net": {"depth": [1, 2]}}),
        "epoch": 3,
    }
    loaded = load(tmp_path, payload, Timm(backbone="test_vit"))
    assert_exactly(loaded, state)
    assert (loaded.audit.prefix, loaded.audit.container) == ("model.", "state_dict")
    assert loaded.audit.unexpected == ("criterion.weight",)


@pytest.mark.parametrize(
    "prefix",
    [
        *("module.", "_orig_mod.", "model.", "encoder.", "backbone.", "net.", "teacher."),
        *("module._orig_mod.", "_orig_mod.module.", "model.net.encoder.", "my.own.wrapper."),
    ],
)
@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
def test_prefixes_are_found(tmp_path, backbone, prefix):
    state = weights(backbone, num_classes=4)
    loaded = load(tmp_path, prefixed(state, prefix), Timm(backbone=backbone))
    assert_exactly(loaded, state)
    assert loaded.audit.prefix == prefix


def test_wrappers_around_single_blocks(tmp_path):
    state = vit()
    wrapped = {name.replace("blocks.1.", "blocks.1._orig_mod."): t for name, t in state.items()}
    loaded = load(tmp_path, prefixed(wrapped, "module."), Timm(backbone="test_vit"))
    assert_exactly(loaded, state)


def test_safetensors(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(vit(), path)
    assert_exactly(load_model(Timm(backbone="test_vit"), read_checkpoint(identify(path))), vit())


@pytest.mark.parametrize("teacher_first", [True, False])
def test_teacher_before_student(tmp_path, teacher_first):
    state = weights("test_vit", num_classes=0)
    both = [prefixed(state, "teacher.backbone."), prefixed(others(state), "student.backbone.")]
    first, second = both if teacher_first else reversed(both)
    loaded = load(tmp_path, {**first, **second}, Timm(backbone="test_vit"))
    assert_exactly(loaded, state)
    assert loaded.audit.prefix == "teacher.backbone."
    assert loaded.audit.rivals == ("student.backbone.",)
    assert "as well under student.backbone." in loaded.audit.summary()


def test_the_better_fit_goes_before_the_teacher(tmp_path):
    state = vit()
    large = prefixed(weights("test_vit2", num_classes=4), "teacher.")
    loaded = load(tmp_path, {**large, **prefixed(state, "student.")}, Timm(backbone="test_vit"))
    assert_exactly(loaded, state)


def test_dino_projection_head_is_no_classifier(tmp_path):
    state = weights("test_vit", num_classes=0)
    head = {
        "head.mlp.0.weight": torch.ones(8, 64),
        "head.mlp.0.bias": torch.ones(8),
        "head.mlp.2.weight": torch.ones(8, 8),
        "head.mlp.2.bias": torch.ones(8),
        "head.last_layer.weight_g": torch.ones(16, 1),
        "head.last_layer.weight_v": torch.ones(16, 8),
    }
    flat = {**state, **head}
    loaded = load(tmp_path, {"teacher": flat, "epoch": 1}, Timm(backbone="test_vit"))
    assert_exactly(loaded, state)
    assert not loaded.has_head


def test_official_dinov2_with_registers_and_swiglu(tmp_path):
    options = {"depth": 2, "embed_dim": 96, "num_heads": 2, "img_size": 56}
    name = "vit_giant_patch14_reg4_dinov2"
    state = weights(name, num_classes=0, **options)
    official = {"mask_token": torch.zeros(1, 96)}
    for key, tensor in state.items():
        key = key.replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3")
        key = key.replace("blocks.", "blocks.0.").replace("reg_token", "register_tokens")
        official[key] = tensor
    at_class = torch.full((1, 1, 96), 0.25)
    official["pos_embed"] = torch.cat([at_class, state["pos_embed"]], dim=1)
    official["cls_token"] = state["cls_token"] - at_class
    del options["img_size"]
    spec = Timm(backbone=name, image_size=(56, 56), options=options)
    loaded = load(tmp_path, {"teacher": prefixed(official, "backbone.")}, spec)
    own = loaded.network.module.state_dict()
    torch.testing.assert_close(own.pop("cls_token"), state["cls_token"])
    assert all(torch.equal(own[key], state[key]) for key in own)
    assert loaded.audit.naming == "dinov2"
    assert loaded.audit.unexpected == ("backbone.mask_token",)


def test_a_distilled_model_has_two_classifiers(tmp_path):
    options = {"depth": 1, "embed_dim": 64, "num_heads": 2}
    name = "deit_tiny_distilled_patch16_224"
    state = weights(name, num_classes=4, **options)
    spec = Timm(backbone=name, options=options)
    loaded = load(tmp_path, state, spec)
    assert_exactly(loaded, state)
    assert loaded.network.classifiers[0] == "head"
    del state["head_dist.weight"]
    assert "incomplete (head_dist.weight)" in refusal(tmp_path, state, spec)


def test_batch_counters_are_optional(tmp_path):
    state = weights("test_resnet", num_classes=4)
    bare = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert len(bare) < len(state)
    loaded = load(tmp_path, bare, Timm(backbone="test_resnet"))
    assert loaded.audit.share == 1
    assert torch.equal(loaded.network.module.bn1.running_var, state["bn1.running_var"])


def test_running_statistics_are_not_optional(tmp_path):
    state = weights("test_resnet", num_classes=4)
    del state["bn1.running_var"]
    assert "Missing: bn1.running_var." in refusal(tmp_path, state, Timm(backbone="test_resnet"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(tmp_path, dtype):
    state = {name: tensor.to(dtype) for name, tensor in vit().items()}
    loaded = load(tmp_path, state, Timm(backbone="test_vit"))
    assert_exactly(loaded, {name: tensor.float() for name, tensor in state.items()})


def test_the_file_is_left_as_it_is(tmp_path):
    load(tmp_path, vit(), Timm(backbone="test_vit"))
    checkpoint = read_checkpoint(identify(tmp_path / "model.pt"))
    loaded = load_model(Timm(backbone="test_vit"), checkpoint)
    for tensor in loaded.network.module.state_dict().values():
        tensor.zero_()
    assert torch.equal(checkpoint.state_dict["cls_token"], vit()["cls_token"])


def test_other_num_classes(tmp_path):
    message = refusal(tmp_path, vit(), Timm(backbone="test_vit", num_classes=5))
    assert "4 classes, not 5. Set model.num_classes=4" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["blocks.1.attn.qkv.weight", "head.bias"])
def test_weights_that_are_no_numbers(tmp_path, name, value):
    state = vit()
    state[name] = state[name].clone()
    state[name].view(-1)[-1] = value
    assert f"NaN or Inf in 1 of its tensors ({name})" in refusal(
        tmp_path, state, Timm(backbone="test_vit")
    )


def test_nan_outside_of_the_model_does_no_harm(tmp_path):
    state = {**vit(), "decoder_embed.weight": torch.full((2, 2), float("nan"))}
    assert_exactly(load(tmp_path, state, Timm(backbone="test_vit")), vit())


def test_quantized_weights_are_not_taken_for_floats(tmp_path):
    state = {**vit(), "blocks.0.mlp.fc1.weight": vit()["blocks.0.mlp.fc1.weight"].to(torch.int8)}
    assert "blocks.0.mlp.fc1.weight is torch.int8" in refusal(
        tmp_path, state, Timm(backbone="test_vit")
    )


def test_missing_weights_are_named(tmp_path):
    state = {k: v for k, v in vit().items() if not k.startswith("blocks.1.")}
    message = refusal(tmp_path, state, Timm(backbone="test_vit"))
    assert "Missing: blocks.1.norm1.weight, blocks.1.norm1.bias" in message
    assert "and 8 more" in message


def test_audit_survives_json(tmp_path):
    audit = load(tmp_path, {"model": prefixed(vit(), "net.")}, Timm(backbone="test_vit")).audit
    plain = audit.as_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["share"] == 1
    assert plain["matched"] == plain["total"] == len(vit()) - 2


# More than the model has: it would load in full and compute another function.


def test_a_deeper_network_of_the_same_width(tmp_path):
    state = weights("test_resnet", num_classes=4, layers=(1, 1, 2, 1))
    message = refusal(tmp_path, state, Timm(backbone="test_resnet"))
    assert "100 % of the encoder" in message
    assert "More than the model has: layer3.1.conv1.weight" in message
    assert "looks like a ResNet with [1, 1, 2, 1] blocks" in message
    assert_exactly(
        load(tmp_path, state, Timm(backbone="test_resnet", options={"layers": (1, 1, 2, 1)})), state
    )


@pytest.mark.parametrize("options", [{"init_values": 1e-5}, {"qk_norm": True}, {"pre_norm": True}])
def test_parts_that_the_model_leaves_out(tmp_path, options):
    state = vit(**options)
    assert "More than the model has" in refusal(tmp_path, state, Timm(backbone="test_vit"))
    assert_exactly(load(tmp_path, state, Timm(backbone="test_vit", options=options)), state)


def test_low_rank_adapters_that_were_not_merged(tmp_path):
    state = {**vit(), "blocks.0.attn.qkv.lora_A": torch.ones(4, 64)}
    assert "blocks.0.attn.qkv.lora_A" in refusal(tmp_path, state, Timm(backbone="test_vit"))


# Wrong architectures and their remedies.

TINY_VIT = {"num_classes": 0, "depth": 12, "embed_dim": 192, "num_heads": 3, "img_size": 32}


@pytest.mark.parametrize("prefix", ["", "model.encoder."])
@pytest.mark.parametrize("backbone", ["test_resnet", "vit_base_patch16_224"])
def test_a_vit_is_recognised(tmp_path, backbone, prefix):
    state = prefixed(weights("vit_base_patch16_224", **TINY_VIT), prefix)
    message = refusal(tmp_path, state, Timm(backbone=backbone, options={}))
    assert "weights fit vit_tiny_patch16_224: set model.backbone=vit_tiny_patch16_224." in message
    assert str(tmp_path / "model.pt") in message


def test_a_vit_of_no_known_name_is_described(tmp_path):
    message = refusal(tmp_path, vit(), Timm(backbone="test_convnext"))
    assert "looks like a ViT with width 64" in message
    assert "try" not in message


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_a_resnet_is_recognised(tmp_path, name):
    with torch.device("meta"):
        names = timm.create_model(name).state_dict()
    state = prefixed(dict.fromkeys(names, torch.ones(1)), "model.")
    assert f"model.backbone={name}." in refusal(tmp_path, state, Timm(backbone="test_vit"))


def test_the_name_in_a_timm_checkpoint(tmp_path):
    payload = {"arch": "test_convnext", "state_dict": weights("test_convnext", num_classes=4)}
    message = refusal(tmp_path, payload, Timm(backbone="test_resnet"))
    assert "try model.backbone=test_convnext." in message


def test_no_name_in_common(tmp_path):
    message = refusal(tmp_path, {"some.weight": torch.ones(3)}, Timm(backbone="test_vit"))
    assert "0 % of the encoder" in message
    assert "model.backbone" in message


@pytest.mark.parametrize("size", [None, (224, 224)])
def test_another_image_size(tmp_path, size):
    spec = Timm(backbone="test_vit", image_size=size)
    assert_exactly(load(tmp_path, vit(img_size=224), spec), vit(img_size=224))


def test_an_oblong_image_size_is_not_guessed(tmp_path):
    message = refusal(tmp_path, vit(img_size=(96, 128)), Timm(backbone="test_vit"))
    assert "positions for 48 patches: set data.image_size" in message


@pytest.mark.parametrize("backbone", ["test_vit", "test_resnet"])
def test_other_channels(tmp_path, backbone):
    state = weights(backbone, num_classes=4, in_chans=1)
    assert "model.in_chans=1" in refusal(tmp_path, state, Timm(backbone=backbone))
    assert_exactly(load(tmp_path, state, Timm(backbone=backbone, in_chans=1)), state)


def test_the_configuration_is_checked_first(tmp_path):
    with pytest.raises(ConfigError, match="test_vit"):
        load(tmp_path, vit(), Timm(backbone="test_vitt"))
