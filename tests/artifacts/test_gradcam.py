"""Equal to pytorch-grad-cam, on the same layer and class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.binding import bind, calibrate, compute, random_images, random_model, run
from torch import nn

from artifactgen.artifacts.cam import closed_forms, routes
from artifactgen.artifacts.cam.gradcam import GradCAM, resolve_classes
from artifactgen.errors import ConfigError
from artifactgen.rendering.overlay import scale_cam
from benchmarks.exactness.reference import pytorch_grad_cam

TOLERANCE = 1e-4
IMAGES = random_images(batch=8, size=(160, 160))

MODELS = {
    "ViT, class token": ("test_vit", (160, 160), {"global_pool": "token"}, "class_token"),
    "ViT, layer scale": ("test_vit", (160, 160), {"init_values": 0.3}, "class_token"),
    "ViT, registers": (
        *("test_vit", (96, 160)),
        {"img_size": (96, 160), "reg_tokens": 4, "global_pool": "token"},
        "class_token",
    ),
    "ViT, norms of q and k": ("test_vit", (160, 160), {"qk_norm": True}, "tail"),
    "ViT, norm of attention": ("test_vit", (160, 160), {"scale_attn_norm": True}, "tail"),
    "ViT, mean": ("test_vit", (160, 160), {"global_pool": "avg"}, "tail"),
    "ViT, attention pooling": ("test_vit3", (160, 160), {}, "tail"),
    "DeiT, distilled": (
        *("deit_tiny_distilled_patch16_224", (64, 96)),
        {"img_size": (64, 96)},
        "tail",
    ),
    "BEiT": ("beit_base_patch16_224", (64, 64), {"img_size": 64, "depth": 2}, "tail"),
    "ResNet": ("resnet18", (96, 64), {}, "pooled"),
    "ConvNeXt": ("convnext_atto", (64, 96), {}, "pooled"),
    "RegNet": ("regnety_002", (64, 64), {}, "pooled"),
    "Swin": ("swin_tiny_patch4_window7_224", (64, 64), {"img_size": 64}, "tail"),
    "MobileNet": ("mobilenetv3_small_050", (96, 96), {}, "tail"),
    "DenseNet": ("densenet121", (64, 64), {}, "pooled"),
}


@pytest.mark.parametrize(("name", "size", "options", "route"), MODELS.values(), ids=MODELS.keys())
def test_equals_pytorch_grad_cam_by_the_cheapest_route_and_by_autograd(name, size, options, route):
    model = random_model(name, **options)
    x_BCHW = random_images(size=size)
    classes = [0, 3, 6]
    calibrated = calibrate(GradCAM(target_classes=classes), model, x_BCHW)
    assert calibrated.options.route == route
    expected_BKHW = pytorch_grad_cam(model, calibrated.layer, x_BCHW, classes)
    assert expected_BKHW.max() > 0.9, "empty maps would agree about nothing"
    for bound in (calibrated, bind(GradCAM(target_classes=classes, route="tail"), model, size)):
        arrays = compute(model, bound, x_BCHW)
        assert arrays["gradcam"].dtype == np.float32
        assert (arrays["gradcam"] >= 0).all()
        assert arrays["gradcam_classes"].tolist() == [classes] * len(x_BCHW)
        maps_BKHW = scale_cam(arrays["gradcam"], size)
        np.testing.assert_allclose(maps_BKHW, expected_BKHW, atol=TOLERANCE, rtol=0)


def test_the_raw_map_is_the_formula_of_the_paper():
    model = random_model("resnet18")
    x_BCHW = random_images(size=(64, 64))
    activation = model.forward_features(x_BCHW).requires_grad_()
    score = model.forward_head(activation)[:, 2].sum()
    (gradient,) = torch.autograd.grad(score, activation)
    weights_BC11 = gradient.mean((2, 3), keepdim=True)
    expected = (weights_BC11 * activation).sum(1).relu().detach().numpy()
    for route in ("pooled", "tail"):
        bound = bind(GradCAM(target_classes=[2], route=route), model, (64, 64))
        cam_Bhw = compute(model, bound, x_BCHW)["gradcam"][:, 0]
        np.testing.assert_allclose(cam_Bhw, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["test_vit", "resnet18"])
def test_a_batch_equals_its_images_one_by_one(name):
    model = random_model(name)
    x_BCHW = random_images(size=(160, 160))
    bound = calibrate(GradCAM(), model, x_BCHW)
    together = compute(model, bound, x_BCHW)["gradcam"]
    for image, cam_Khw in zip(x_BCHW, together, strict=True):
        alone = compute(model, bound, image[None])["gradcam"][0]
        np.testing.assert_allclose(alone, cam_Khw, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", ["test_vit", "resnet18", "convnext_atto"])
def test_predicted_gives_each_image_its_own_class(name):
    model = random_model(name)
    with torch.no_grad():  # else random CNNs find the same class in all random images
        classifier = model.get_classifier()
        features = model.forward_head(model.forward_features(IMAGES), pre_logits=True)
        classifier.bias.sub_(classifier(features).mean(0))
    x_BCHW = IMAGES
    bound = calibrate(GradCAM(target_classes="predicted"), model, x_BCHW)
    assert bound.options.route != "tail"
    arrays = compute(model, bound, x_BCHW)
    with torch.no_grad():
        expected = model(x_BCHW).argmax(1)
    assert len(set(expected.tolist())) > 1, expected
    assert arrays["gradcam_classes"][:, 0].tolist() == expected.tolist()
    maps_BKhw = compute(model, bind(GradCAM(route="tail"), model, (160, 160)), x_BCHW)["gradcam"]
    own = maps_BKhw[np.arange(8), expected.numpy()]
    np.testing.assert_allclose(arrays["gradcam"][:, 0], own, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["test_vit", "resnet18"])
def test_many_classes_are_done_in_chunks_to_the_same_maps(name, monkeypatch):
    model = random_model(name)
    x_BCHW = random_images(size=(160, 160))
    bound = calibrate(GradCAM(), model, x_BCHW)
    whole = compute(model, bound, x_BCHW)["gradcam"]
    monkeypatch.setattr(closed_forms, "_CHUNK_BYTES", 1)
    np.testing.assert_allclose(compute(model, bound, x_BCHW)["gradcam"], whole, atol=1e-6)


def test_unfused_attention_shows_no_queries_so_autograd_is_used():
    model = random_model("test_vit", global_pool="token")
    for block in model.blocks:
        block.attn.fused_attn = False  # as TIMM_FUSED_ATTN=0 does
    assert calibrate(GradCAM(), model, random_images(size=(160, 160))).options.route == "tail"


def test_a_small_map_is_held_against_autograd_by_its_own_size():
    expected = torch.randn(2, 2, 4, 4)
    expected[1, 1] *= 1e-5
    assert routes._meets(expected * (1 + 1e-5), expected, "form")
    mirrored = expected.clone()
    mirrored[1, 1] = expected[1, 1].flip(0)
    assert not routes._meets(mirrored, expected, "form")
    negative = -expected.abs()
    assert not routes._meets(negative.flip(2), negative, "form"), "before the ReLU"
    assert not routes._meets(expected * 0, expected * 0, "form"), "nothing is shown by that"


def test_a_trial_is_a_few_classes_and_no_perturbation():
    model = random_model("resnet18")
    bound = bind(GradCAM(method="scorecam"), model, (64, 64))
    trial = bound.trial()
    assert trial.share == pytest.approx(5 / 7)
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    maps = compute(model, trial.artifact, random_images(size=(64, 64)))["gradcam"]
    assert maps.shape[:2] == (3, 5)
    assert not calls, "the model itself is not called beside the pass"


def test_a_closed_form_that_does_not_meet_autograd_is_not_taken(caplog):
    """A subclass may change what the structure does not show: here, the block's second half."""
    model = random_model("test_vit", global_pool="token")
    mlp = model.blocks[-1].mlp
    scaled = type("Doubled", (nn.Module,), {"forward": lambda self, x: mlp(x) * self.factor(x)})()
    scaled.factor = lambda x: 2.0 if x.ndim == 3 else 1.0  # another function of one token alone
    model.blocks[-1].mlp = scaled
    bound = calibrate(GradCAM(), model, random_images(size=(160, 160)))
    assert bound.options.route == "tail"
    assert "differs from autograd" in caplog.text


@pytest.mark.parametrize(
    ("name", "layer", "route"),
    [
        ("test_vit", "auto", "pooled"),
        ("test_vit", "blocks.4.norm1", "class_token"),
        ("resnet18", "auto", "class_token"),
        ("resnet18", "layer3", "pooled"),
    ],
)
def test_a_closed_form_that_does_not_hold_is_refused_where_it_is_asked_for(name, layer, route):
    with pytest.raises(ConfigError, match=rf"gradcam\.route={route} does not hold .*route=auto"):
        calibrate(
            GradCAM(layer=layer, route=route),
            random_model(name, **({"global_pool": "token"} if name == "test_vit" else {})),
            random_images(size=(160, 160)),
        )


def test_maps_in_bf16_are_near_those_in_float32():
    for name, least in (("test_vit", 0.98), ("resnet18", 0.98)):
        model = random_model(name)
        x_BCHW = random_images(size=(160, 160))
        bound = calibrate(GradCAM(), model, x_BCHW)
        exact = compute(model, bound, x_BCHW)["gradcam"]
        for route in (bound.options.route, "tail"):
            mixed = bind(GradCAM(route=route), model, (160, 160))
            with torch.autocast("cpu", torch.bfloat16):
                passed = run(model, mixed, x_BCHW)
            found = mixed.compute(passed)["gradcam"].numpy()
            assert found.dtype == np.float32
            assert np.corrcoef(found.ravel(), exact.ravel())[0, 1] > least


def test_the_tail_is_computed_in_float32_behind_a_prefix_in_bf16():
    model = random_model("resnet18")
    bound = bind(GradCAM(layer="layer3", route="tail"), model, (64, 64))
    dtypes = []
    for layer in (model.layer2, model.layer4):
        layer.register_forward_hook(lambda _m, _i, out: dtypes.append(out.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        passed = run(model, bound, random_images(size=(64, 64)))
    assert dtypes == [torch.bfloat16, torch.float32]
    assert passed.logits_BK.dtype == torch.float32
    assert bound.compute(passed)["gradcam"].any()


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (None, (0, 1, 2)),
        ([2, 0, 2], (2, 0)),
        (["b"], (1,)),
        (["c", 0], (2, 0)),
        ("predicted", None),
    ],
)
def test_classes_by_index_and_name(wanted, expected):
    assert resolve_classes(wanted, ("a", "b", "c")) == expected


@pytest.mark.parametrize("wanted", [[3], [-1], ["d"], [], "a"])
def test_unknown_classes_are_refused(wanted):
    with pytest.raises(ConfigError, match="target_classes"):
        resolve_classes(wanted, ("a", "b", "c"))


def test_an_untrained_head_is_never_used():
    with pytest.raises(ConfigError, match="generate_gradcam=false"):
        bind(GradCAM(), random_model("test_vit"), (160, 160), has_head=False)


def test_a_layer_that_there_is_not_is_refused_with_near_names():
    with pytest.raises(ConfigError, match=r"blocks\.5\.norm1"):
        bind(GradCAM(layer="blocks.5.norm"), random_model("test_vit"), (160, 160))


def test_a_layer_behind_which_patches_do_not_count_is_refused_with_those_that_work():
    """With a class token, the last block's output reaches the logits through that token only."""
    model = random_model("test_vit", global_pool="token")
    with pytest.raises(ConfigError, match=r"one of blocks\.5\.attn\.qkv, blocks\.5\.norm1"):
        calibrate(GradCAM(layer="blocks.5"), model, random_images(size=(160, 160)))
    assert calibrate(GradCAM(), model, random_images(size=(160, 160))).layer == "blocks.5.norm1"


def test_a_layer_without_positions_is_refused():
    with pytest.raises(ConfigError, match="no position"):
        calibrate(GradCAM(layer="fc"), random_model("resnet18"), random_images(size=(64, 64)))
