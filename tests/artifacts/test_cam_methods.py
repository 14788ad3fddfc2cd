"""Equal to the methods of pytorch-grad-cam beside GradCAM."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest
import pytorch_grad_cam
import torch
from helpers.binding import CLASSES, bind, calibrate, compute, random_images, random_model, run
from pytorch_grad_cam.ablation_layer import AblationLayer, AblationLayerVit
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from artifactgen.artifacts.cam.gradcam import GradCAM
from artifactgen.artifacts.cam.methods import _NAMES
from artifactgen.errors import ConfigError
from artifactgen.rendering.overlay import scale_cam
from benchmarks.exactness.reference import reshape_transform

TOLERANCE = 1e-4
SLOW = ("scorecam", "ablationcam")
MODELS = {"ViT": ("test_vit", (64, 96), (4, 6)), "ResNet": ("resnet18", (64, 96), None)}


def make_model(name: str, size: tuple[int, int]) -> nn.Module:
    options = {"img_size": size} if name == "test_vit" else {}
    return random_model(name, **options).requires_grad_(False)


def library(model: nn.Module, method: str, layer: str, x_BCHW: Tensor, classes: list[int], grid):
    """Scaled maps (B, K, H, W) by the library on its own."""
    model = copy.deepcopy(model).requires_grad_(True)
    options = {}
    if method == "ablationcam":
        options["ablation_layer"] = AblationLayerVit() if grid else AblationLayer()
    transform = reshape_transform(model, grid) if grid else None
    kind = getattr(pytorch_grad_cam, _NAMES[method])
    cam = kind(model, [model.get_submodule(layer)], transform, **options)
    maps = [cam(x_BCHW, [ClassifierOutputTarget(k)] * len(x_BCHW)) for k in classes]
    return np.stack(maps, 1)


@pytest.mark.parametrize("method", _NAMES)
@pytest.mark.parametrize(("name", "size", "grid"), MODELS.values(), ids=MODELS)
def test_equals_the_library(method, name, size, grid):
    model = make_model(name, size)
    x_BCHW = random_images(batch=2, size=size)
    classes = [0, 3, 6]
    # Deep layers have hundreds of channels, each of them a forward pass of a perturbation.
    layer = "layer1" if method in SLOW and not grid else "auto"
    options = GradCAM(method=method, layer=layer, target_classes=classes)
    bound = calibrate(options, model, x_BCHW)
    maps_BKhw = compute(model, bound, x_BCHW)["gradcam"]
    assert maps_BKhw.dtype == np.float32
    assert (maps_BKhw >= 0).all()
    expected = library(model, method, bound.layer, x_BCHW, classes, grid)
    np.testing.assert_allclose(scale_cam(maps_BKhw, size), expected, atol=TOLERANCE, rtol=0)
    assert expected.max() > 0.9


def test_ablation_takes_out_channels_wherever_they_lie():
    """Swin has channels last: rows of the image must not be taken for them."""
    size = (64, 96)
    model = random_model(
        "swin_tiny_patch4_window7_224", img_size=size, depths=(1, 1), num_heads=(1, 2), embed_dim=24
    )
    x_BCHW = random_images(batch=1, size=size)
    bound = calibrate(GradCAM(method="ablationcam", target_classes=[0, 3, 6]), model, x_BCHW)
    maps_BKhw = compute(model, bound, x_BCHW)["gradcam"]
    expected = np.stack(
        [library_nhwc(model, bound.layer, x_BCHW, index) for index in (0, 3, 6)], axis=1
    )
    np.testing.assert_allclose(scale_cam(maps_BKhw, size), expected, atol=TOLERANCE, rtol=0)
    assert expected.max() > 0.9


def library_nhwc(model: nn.Module, layer: str, x_BCHW: Tensor, index: int) -> np.ndarray:
    cam = pytorch_grad_cam.AblationCAM(
        copy.deepcopy(model).requires_grad_(True),
        [],
        lambda output: output.permute(0, 3, 1, 2),
        ablation_layer=AblationLayerVit(),
    )
    cam.target_layers = [cam.model.get_submodule(layer)]
    cam.activations_and_grads = type(cam.activations_and_grads)(
        cam.model, cam.target_layers, cam.reshape_transform
    )
    return cam(x_BCHW, [ClassifierOutputTarget(index)] * len(x_BCHW))


def test_no_hook_of_the_library_outlives_a_lack_of_memory():
    model = make_model("resnet18", (64, 64))
    bound = bind(GradCAM(method="ablationcam", layer="layer1"), model, (64, 64))
    x_BCHW = random_images(batch=1, size=(64, 64))
    passed = run(model, bound, x_BCHW)

    def have_no_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    broken = model.fc.register_forward_pre_hook(have_no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        bound.compute(passed)
    broken.remove()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_map_of_activations_needs_no_gradient():
    model = random_model("test_vit", img_size=64, global_pool="token")
    options = GradCAM(method="eigencam", layer="blocks.5")  # where class scores see no patches
    bound = calibrate(options, model, random_images(size=(64, 64)))
    assert compute(model, bound, random_images(size=(64, 64)))["gradcam"].any()


@pytest.mark.parametrize("method", SLOW)
def test_perturbation_leaves_the_model_and_the_library_as_they_were(method, capfd):
    model = make_model("resnet18", (64, 64))
    before = dict(model.named_modules())
    progress = sys.modules[f"pytorch_grad_cam.{method[:-3]}_cam"].tqdm
    x_BCHW = random_images(batch=1, size=(64, 64))
    bound = bind(GradCAM(method=method, layer="layer1", target_classes=[0]), model, (64, 64))
    compute(model, bound, x_BCHW)
    assert dict(model.named_modules()) == before
    assert not any(m._forward_hooks for m in model.modules())
    assert sys.modules[f"pytorch_grad_cam.{method[:-3]}_cam"].tqdm is progress
    assert capfd.readouterr().err == "", "no progress bars in log files"


def test_a_failure_within_a_perturbation_leaves_the_model_as_it_was(monkeypatch):
    model = make_model("resnet18", (64, 64))
    before = dict(model.named_modules())
    bound = bind(GradCAM(method="ablationcam", layer="layer1"), model, (64, 64))

    def fail(*_args, **_kwargs):
        raise RuntimeError("in the middle")

    monkeypatch.setattr(AblationLayer, "set_next_batch", fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        compute(model, bound, random_images(batch=1, size=(64, 64)))
    assert dict(model.named_modules()) == before


def test_what_perturbation_costs_is_said(caplog):
    model = make_model("resnet18", (64, 64))
    calibrate(GradCAM(method="scorecam", layer="layer1"), model, random_images(size=(64, 64)))
    assert "gradcam.method=scorecam runs the model about 64 times for each record" in caplog.text


def test_each_image_can_have_a_class_of_its_own():
    model = make_model("test_vit", (64, 96))
    x_BCHW = random_images(batch=4, size=(64, 96))
    bound = bind(GradCAM(method="layercam", target_classes="predicted"), model, (64, 96))
    arrays = compute(model, bound, x_BCHW)
    every = compute(model, bind(GradCAM(method="layercam"), model, (64, 96)), x_BCHW)
    own = every["gradcam"][np.arange(4), arrays["gradcam_classes"][:, 0]]
    np.testing.assert_allclose(arrays["gradcam"][:, 0], own, atol=1e-6)


def test_without_the_library_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(ConfigError, match="pip install grad-cam"):
        bind(GradCAM(method="layercam"), make_model("test_vit", (64, 96)), (64, 96))
    assert bind(GradCAM(), make_model("test_vit", (64, 96)), (64, 96)).resolved()["layer"]


def test_a_map_of_activations_is_the_same_for_all_classes():
    model = make_model("resnet18", (64, 64))
    bound = bind(GradCAM(method="eigencam"), model, (64, 64))
    assert not bound.taps.gradients
    maps = compute(model, bound, random_images(size=(64, 64)))["gradcam"]
    assert maps.shape[1] == len(CLASSES)
    assert all(
        torch.equal(torch.from_numpy(maps[:, 0]), torch.from_numpy(m)) for m in maps.swapaxes(0, 1)
    )
