"""Equal to timm, pytorch-grad-cam and unfused attention; of a batch what its images give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.binding import CLASSES, random_images, random_model
from torch import nn

from artifactgen import Explainer
from artifactgen.errors import ConfigError, UnsupportedError
from benchmarks.exactness.reference import attention_matrices, pytorch_grad_cam, timm_embedding

SIZE = 160, 160
ROUTES = {
    "test_vit": "tail",
    "vit_tiny_patch16_224": "class_token",
    "resnet18": "pooled",
}


def model_of(name: str, **options: object) -> nn.Module:
    return random_model(name, **({"img_size": SIZE} if name.startswith("vit") else {}), **options)


@pytest.mark.parametrize("name", ROUTES)
def test_equals_timm_and_pytorch_grad_cam(name: str) -> None:
    options = {"global_pool": "avg"} if name == "test_vit" else {}
    model, x_BCHW = model_of(name, **options), random_images(size=SIZE)
    x = Explainer(model, classes=CLASSES)(x_BCHW)
    np.testing.assert_allclose(x.embeddings, timm_embedding(model, x_BCHW), rtol=0, atol=1e-5)
    with torch.no_grad():
        logits_BK = model(x_BCHW)
    torch.testing.assert_close(x.logits, logits_BK, rtol=0, atol=1e-4)
    torch.testing.assert_close(x.probabilities, logits_BK.softmax(1), rtol=0, atol=1e-5)
    assert x.predictions == [CLASSES[index] for index in logits_BK.argmax(1)]
    found = x.resolved["gradcam"]
    assert found["route"] == ROUTES[name]
    expected = pytorch_grad_cam(model, found["layer"], x_BCHW, range(len(CLASSES)))
    assert expected.max() > 0.9, "empty maps would agree about nothing"
    assert x.gradcam.shape[:2] == (3, len(CLASSES))
    np.testing.assert_allclose(x.gradcam_heatmaps, expected, rtol=0, atol=1e-4)


def test_attention_equals_what_is_not_fused() -> None:
    model, x_BCHW = model_of("vit_tiny_patch16_224"), random_images(size=SIZE)
    x = Explainer(model, attention_layers=[0, -1])(x_BCHW)
    matrices = attention_matrices(model, x_BCHW)[[0, -1]]
    expected = matrices[:, :, :, 0, 1:].reshape(2, 3, 3, 10, 10).transpose(0, 1)
    assert x.attention.shape == (3, 2, 3, 10, 10)
    torch.testing.assert_close(x.attention, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "resnet18"])
def test_of_a_batch_it_is_what_its_images_give(name: str) -> None:
    explain, x_BCHW = Explainer(model_of(name)), random_images(5, size=SIZE)
    whole, in_parts = explain(x_BCHW), Explainer(explain.model, batch_size=2)(x_BCHW)
    assert len(whole) == len(in_parts) == 5
    for index, image in enumerate(x_BCHW):
        alone = explain(image)
        assert alone.embeddings.shape[0] == len(alone) == 1
        for other in (whole[index], in_parts[index]):
            for kind in ("embeddings", "logits", "gradcam"):
                found, expected = getattr(alone, kind), getattr(other, kind)
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
            assert np.array_equal(other.images, alone.images)
    assert [one.titles for one in whole[3:]] == [["Image 3"], ["Image 4"]]
    assert whole[-1].titles == ["Image 4"]
    with pytest.raises(IndexError):
        whole[5]


def test_pictures_are_of_the_image_and_its_map() -> None:
    model = model_of("vit_tiny_patch16_224")
    x = Explainer(model, classes=CLASSES, mean=[0.5], std=[0.25])(random_images(2, size=SIZE))
    assert x.gradcam_images.shape == (2, len(CLASSES), *SIZE, 3)
    assert x.gradcam_images.dtype == np.uint8
    assert np.array_equal(x.overlay(1, 3), x.gradcam_images[1, 3])
    assert np.array_equal(x.overlay(1, "class 3"), x.overlay(-1, 3))
    best = CLASSES.index(x.predictions[0])
    assert np.array_equal(x.overlay(), x.gradcam_images[0, best])
    figure = x.figure(1)
    assert figure.shape[1:] == (1800, 3)
    assert not np.array_equal(figure, x.figure(1, title="other"))
    assert not np.array_equal(figure, x.figure(1, label="class 3"))


def test_classes_are_chosen_by_name_or_are_those_predicted() -> None:
    model, x_BCHW = model_of("resnet18"), random_images(2, size=SIZE)
    every = Explainer(model, classes=CLASSES)(x_BCHW)
    some = Explainer(model, classes=CLASSES, target_classes=["class 5", 2])(x_BCHW)
    assert some.gradcam_classes.tolist() == [[5, 2]] * 2
    torch.testing.assert_close(some.gradcam, every.gradcam[:, [5, 2]], rtol=1e-4, atol=1e-6)
    assert np.array_equal(some.overlay(0, 2), some.gradcam_images[0, 1])
    with pytest.raises(ConfigError, match="GradCAM is of class 5, class 2 here, and not of cl"):
        some.overlay(0, 1)
    for one in (np.int64(5), torch.tensor(5), "class 5"):
        of_one = Explainer(model, classes=CLASSES, target_classes=one)(x_BCHW)
        assert of_one.gradcam_classes.tolist() == [[5]] * 2
        assert np.array_equal(of_one[np.int64(1)].overlay(0, one), of_one.gradcam_images[1, 0])
    own = Explainer(model, target_classes="predicted")(x_BCHW)
    assert own.gradcam_classes[:, 0].tolist() == every.logits.argmax(1).tolist()
    assert own.predictions == [str(index) for index in own.gradcam_classes[:, 0].tolist()]


def test_what_a_model_cannot_give_says_why_and_the_rest_is_there() -> None:
    images = random_images(2, size=SIZE)
    cnn = Explainer(model_of("resnet18"))(images)
    with pytest.raises(UnsupportedError, match=r"^ResNet computes no attention\.$"):
        _ = cnn.attention
    with pytest.raises(UnsupportedError, match="ResNet computes no attention"):
        cnn.figure()
    assert cnn.gradcam.shape == (2, 7, 5, 5)
    encoder = random_model("vit_tiny_patch16_224", img_size=SIZE)
    encoder.reset_classifier(0)
    x = Explainer(encoder)(images)
    needs = "GradCAM needs a classifier, and VisionTransformer has none"
    for attribute in ("gradcam", "gradcam_classes", "gradcam_heatmaps", "gradcam_images"):
        with pytest.raises(UnsupportedError, match=needs):
            getattr(x, attribute)
    for attribute in ("logits", "probabilities", "predictions"):
        with pytest.raises(UnsupportedError, match=r"^VisionTransformer has no classifier\.$"):
            getattr(x, attribute)
    with pytest.raises(UnsupportedError, match="no classifier"):
        x.overlay()
    assert x.embeddings.shape == (2, 192)
    assert x.figure().shape[1:] == (1800, 3)
    assert x.classes == ()
    assert x.missing.keys() == {"gradcam", "logits"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "layer9"}, r"^layer=layer9: ResNet has no such module\. Did you mean layer"),
        ({"classes": ["cat", "dog"]}, "classes has 2 names, and ResNet has 7 outputs"),
        ({"target_classes": ["cow"]}, "target_classes: there is no class 'cow' among 7"),
        ({"pooling": "cls"}, "pooling=cls: ResNet has no class token"),
        ({"classifier": "head"}, "classifier=head: ResNet has no such module"),
        ({"precision": "16-mixed"}, "precision=16-mixed needs a GPU"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_option_is_named_as_it_is_called_here(
    options: dict[str, object], message: str
) -> None:
    explain = Explainer(model_of("resnet18"), **options)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        explain(random_images(1, size=SIZE))


def test_a_block_that_there_is_not() -> None:
    explain = Explainer(model_of("vit_tiny_patch16_224"), attention_layers=[12])
    with pytest.raises(ConfigError, match=r"^attention_layers: there is no block 12"):
        explain(random_images(1, size=SIZE))


def test_what_can_be_seen_without_images_is_said_at_once() -> None:
    with pytest.raises(ConfigError, match="and this is a str"):
        Explainer("resnet18")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="batch_size=0 must be 1 or more"):
        Explainer(nn.Identity(), batch_size=0)
    with pytest.raises(ConfigError, match="Give mean and std"):
        Explainer(nn.Identity(), mean=[0.5])


def test_another_method_and_another_layer() -> None:
    model, x_BCHW = model_of("resnet18"), random_images(1, size=SIZE)
    x = Explainer(model, method="hirescam", layer="layer3", target_classes=[1])(x_BCHW)
    assert x.gradcam.shape == (1, 1, 10, 10)
    assert x.resolved["gradcam"] == {"method": "hirescam", "layer": "layer3", "classes": [1]}


def test_images_of_another_size_and_a_new_head_are_looked_at_anew() -> None:
    model = model_of("resnet18")
    explain = Explainer(model)
    assert explain(random_images(1, size=SIZE)).gradcam.shape == (1, 7, 5, 5)
    assert explain(random_images(1, size=(64, 96))).gradcam.shape == (1, 7, 2, 3)
    model.fc = nn.Linear(512, 3)
    x = explain(random_images(1, size=SIZE))
    assert x.gradcam.shape == (1, 3, 5, 5)
    assert x.classes == ("0", "1", "2")


def test_memory_does_not_grow_with_the_sizes_of_images() -> None:
    explain = Explainer(model_of("resnet18"), target_classes=[0])
    for width in range(32, 52, 2):
        explain(random_images(1, size=(32, width)))
    assert len(explain._prepared) == 8


def test_a_module_without_weights_is_no_classifier() -> None:
    with pytest.raises(ConfigError, match="Identity cannot take an image of 3 channels"):
        Explainer(nn.Identity())(torch.randn(1, 3, 32, 32))
