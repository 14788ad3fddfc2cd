"""Framing against the transforms that models of transformers and torchvision come with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torchvision.models
import transformers
from PIL import Image

from artifactgen.data.framing import frame
from artifactgen.errors import ConfigError
from artifactgen.models.hub import Processor, read_processor
from artifactgen.models.torchvision import Torchvision

SIZES = [(300, 427), (329, 275), (79, 93), (224, 224), (61, 400), (255, 256)]
PROCESSORS = {
    "ViT": {},
    "DeiT": {},
    "Beit": {},
    "CLIP": {},
    "Siglip": {},
    "Bit": {"size": {"shortest_edge": 256}},  # DINOv2's
    "Bit, odd": {"size": {"shortest_edge": 57}, "crop_size": {"height": 48, "width": 48}},
    "ConvNext": {"size": {"shortest_edge": 224}},
    "ConvNext, large": {"size": {"shortest_edge": 384}},
    "EfficientNet": {},
    "EfficientNet, from -1": {"rescale_factor": 1 / 127.5, "rescale_offset": True},
    "Levit": {},
    "PoolFormer": {},
    "MobileNetV2": {},
    "Pvt": {},
    "ViT, not scaled": {"do_rescale": False, "image_mean": 127.5, "image_std": 60.0},
}


def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in SIZES]


@pytest.fixture(params=PROCESSORS)
def made(request, tmp_path):
    """Both processors of a model, and what a saved one tells us."""
    name, options = request.param.partition(",")[0], PROCESSORS[request.param]
    by_pillow = getattr(transformers, f"{name}ImageProcessorPil")(**options)
    usual = getattr(transformers, f"{name}ImageProcessor")(**options)
    by_pillow.save_pretrained(tmp_path)
    return by_pillow, usual, read_processor(tmp_path)


def processed(processor, picture, **options):
    return processor(images=Image.fromarray(picture), return_tensors="np", **options)[
        "pixel_values"
    ][0]


def test_equal_to_the_processors_of_transformers(made):
    """To the bit by Pillow; torchvision's tensors are resized with other roundings."""
    by_pillow, usual, ours = made
    for picture in pictures():
        found = frame(picture, ours.size(), ours.framing())
        pixels = {"do_rescale": False, "do_normalize": False}
        pixels |= {"include_top": False} if hasattr(usual, "include_top") else {}
        assert (found == processed(by_pillow, picture, **pixels)).all()
        difference = np.abs(found - processed(usual, picture, **pixels).astype(float))
        assert difference.mean() < 1  # of noise: 8 bits are clipped where a filter overshoots
        mean, std = (np.array(values).reshape(-1, 1, 1) for values in ours.normalization())
        normalised = (found / 255 - mean) / std
        np.testing.assert_allclose(normalised, processed(by_pillow, picture), atol=1e-5)


@pytest.mark.parametrize(
    ("values", "resized"),
    [
        # As older folders of the hub have them.
        ({"size": 224, "do_center_crop": False}, "squash"),
        ({"size": 224, "crop_size": 224, "do_center_crop": True}, "center"),
        (
            {"size": 256, "crop_size": 224, "feature_extractor_type": "DeiTFeatureExtractor"},
            "squash",
        ),
        ({"size": [224, 224]}, "squash"),
    ],
)
def test_sizes_of_older_configurations(values, resized):
    processor = Processor(values)
    assert processor.size() == (224, 224)
    assert processor.framing().crop_mode == resized


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16", "swin_t", "efficientnet_v2_s", "vgg11"])
def test_equal_to_the_presets_of_torchvision(name):
    family = Torchvision(backbone=name)
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    mean, std = (np.array(values).reshape(-1, 1, 1) for values in family.normalization())
    for picture in pictures():
        found = frame(picture, family.input_size(), family.framing())
        expected = preset(Image.fromarray(picture)).numpy()
        np.testing.assert_allclose((found / 255 - mean) / std, expected, atol=1e-5)


def test_the_processor_of_images_and_texts_is_read(tmp_path):
    """Version 5 of transformers saves it so, with that of the images inside."""
    inner = json.loads(transformers.CLIPImageProcessor().to_json_string())
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": inner}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"size": 99}))
    assert read_processor(tmp_path) == Processor(inner)
    assert read_processor(tmp_path).normalization()[0] == tuple(inner["image_mean"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MobileViT", "do_flip_channel_order: the model takes BGR"),
        ("Perceiver", "not made ready here as PerceiverImageProcessor does it"),
    ],
)
def test_what_is_not_done_here_is_refused(tmp_path, name, message):
    getattr(transformers, f"{name}ImageProcessor")().save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=rf"preprocessor_config\.json: .*{message}"):
        read_processor(tmp_path)


def test_a_folder_without_a_processor_says_nothing(tmp_path: Path):
    assert read_processor(tmp_path).size() is None
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_resize": True}))
    assert read_processor(tmp_path).normalization() is None
