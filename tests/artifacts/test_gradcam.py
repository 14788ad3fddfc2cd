"""Equal to pytorch-grad-cam, on the same layer and class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import bind, random_images, random_model, run

from artifactgen.artifacts.gradcam import GradCAM, resolve_classes
from artifactgen.errors import ConfigError
from artifactgen.rendering.overlay import scale_cam
from benchmarks.reference import pytorch_grad_cam

TOLERANCE = 1e-4

MODELS = {
    "ViT, class token": ("test_vit", (160, 160), {"global_pool": "token"}),
    "ViT, mean": ("test_vit", (160, 160), {"global_pool": "avg"}),
    "ViT, registers, not square": ("test_vit", (96, 160), {"img_size": (96, 160), "reg_tokens": 4}),
    "ViT, attention pooling": ("test_vit3", (160, 160), {}),
    "DeiT, distilled": ("deit_tiny_distilled_patch16_224", (64, 96), {"img_size": (64, 96)}),
    "ResNet": ("resnet18", (96, 64), {}),
    "ConvNeXt": ("convnext_atto", (64, 96), {}),
    "Swin": ("swin_tiny_patch4_window7_224", (64, 64), {"img_size": 64}),
    "MobileNet": ("mobilenetv3_small_050", (96, 96), {}),
    "DenseNet": ("densenet121", (64, 64), {}),
}


@pytest.mark.parametrize(("name", "size", "options"), MODELS.values(), ids=MODELS.keys())
def test_equals_pytorch_grad_cam(name, size, options):
    model = random_model(name, **options)
    x_BCHW = random_images(size=size)
    classes = [0, 3, 6]
    bound = bind(GradCAM(target_classes=classes), model, size)
    arrays = bound.compute(run(model, bound, x_BCHW))
    assert arrays["gradcam"].dtype == np.float32
    assert (arrays["gradcam"] >= 0).all()
    assert arrays["gradcam_classes"].tolist() == [classes] * len(x_BCHW)
    maps_BKHW = scale_cam(arrays["gradcam"], size)
    expected_BKHW = pytorch_grad_cam(model, bound.layer, x_BCHW, classes)
    np.testing.assert_allclose(maps_BKHW, expected_BKHW, atol=TOLERANCE, rtol=0)
    assert maps_BKHW.max() > 0.9, "empty maps would agree about nothing"


def test_the_raw_map_is_the_formula_of_the_paper():
    model = random_model("resnet18")
    x_BCHW = random_images(size=(64, 64))
    bound = bind(GradCAM(target_classes=[2]), model, (64, 64))
    cam_Bhw = bound.compute(run(model, bound, x_BCHW))["gradcam"][:, 0]

    activation = model.forward_features(x_BCHW).requires_grad_()
    score = model.forward_head(activation)[:, 2].sum()
    (gradient,) = torch.autograd.grad(score, activation)
    weights_BC11 = gradient.mean((2, 3), keepdim=True)
    expected = (weights_BC11 * activation).sum(1).relu().detach().numpy()
    np.testing.assert_allclose(cam_Bhw, expected, atol=1e-6, rtol=1e-5)


def test_a_batch_equals_its_images_one_by_one():
    model = random_model("test_vit")
    x_BCHW = random_images(size=(160, 160))
    bound = bind(GradCAM(), model, (160, 160))
    together = bound.compute(run(model, bound, x_BCHW))["gradcam"]
    for image, cam_Khw in zip(x_BCHW, together, strict=True):
        alone = bound.compute(run(model, bound, image[None]))["gradcam"][0]
        np.testing.assert_allclose(alone, cam_Khw, atol=1e-6, rtol=1e-4)


def test_predicted_gives_each_image_its_own_class():
    model = random_model("test_vit")
    x_BCHW = random_images(batch=8, size=(160, 160))
    bound = bind(GradCAM(target_classes="predicted"), model, (160, 160))
    arrays = bound.compute(run(model, bound, x_BCHW))
    with torch.no_grad():
        expected = model(x_BCHW).argmax(1)
    assert len(set(expected.tolist())) > 1
    assert arrays["gradcam_classes"][:, 0].tolist() == expected.tolist()
    every = bind(GradCAM(), model, (160, 160))
    maps_BKhw = every.compute(run(model, every, x_BCHW))["gradcam"]
    own = maps_BKhw[np.arange(8), expected.numpy()]
    np.testing.assert_allclose(arrays["gradcam"][:, 0], own, atol=1e-6, rtol=1e-5)


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


def test_a_layer_behind_which_patches_do_not_count_is_refused():
    """With a class token, the last block's output reaches the logits through that token only."""
    model = random_model("test_vit", global_pool="token")
    bound = bind(GradCAM(layer="blocks.5"), model, (160, 160))
    forward_pass = run(model, bound, random_images(size=(160, 160)))
    with pytest.raises(ConfigError, match=r"to blocks\.5\.norm1"):
        bound.check(forward_pass)
    good = bind(GradCAM(), model, (160, 160))
    good.check(run(model, good, random_images(size=(160, 160))))


def test_a_layer_without_positions_is_refused():
    model = random_model("resnet18")
    bound = bind(GradCAM(layer="fc"), model, (64, 64))
    with pytest.raises(ConfigError, match="no position"):
        bound.check(run(model, bound, random_images(size=(64, 64))))
