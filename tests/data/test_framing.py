"""Framing against timm's own evaluation transform, to the bit."""

from __future__ import annotations

import numpy as np
import pytest
import timm
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform, resolve_data_config

from artifactgen.data.framing import frame, placement
from artifactgen.errors import RecordError
from artifactgen.models.base import crop_pct_of
from artifactgen.models.mae_vit import MaeViT
from artifactgen.models.timm import Timm
from artifactgen.types import Framing

SIDES = st.integers(3, 90)
FRAMINGS = st.builds(
    Framing,
    crop_pct=st.sampled_from([0.7, 0.875, 0.9, 0.95, 0.96, 1.0, 1.1]),
    crop_mode=st.sampled_from(["center", "squash", "border"]),
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
    border=st.just((0.4, 0.5, 0.6)),
)


def noise(*shape, dtype=np.uint8):
    return np.random.default_rng(sum(shape)).integers(0, 256, shape).astype(dtype)


@given(SIDES, SIDES, SIDES, SIDES, FRAMINGS)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_equal_to_timm(height, width, to_height, to_width, framing):
    picture, size = noise(height, width, 3), (to_height, to_width)
    transform = create_transform(
        (3, *size),
        crop_pct=framing.crop_pct,
        crop_mode=framing.crop_mode,
        interpolation=framing.interpolation,
        mean=framing.border,
        normalize=False,
    )
    expected = transform(Image.fromarray(picture)).numpy()
    found = frame(picture, size, framing)
    assert found.shape == expected.shape
    assert (found == expected).all()
    assert found.flags.c_contiguous


@pytest.mark.parametrize(
    "backbone",
    [
        "vit_base_patch16_224",
        "vit_base_patch16_224.mae",
        "resnet50.tv_in1k",
        "convnext_tiny.in12k_ft_in1k_384",
        "eva02_base_patch14_448.mim_in22k_ft_in1k",
        "vit_so400m_patch14_siglip_384.webli",
        "efficientnet_b0.ra_in1k",
    ],
)
def test_a_family_of_timm_frames_as_timm_does(backbone):
    family = Timm(backbone=backbone)
    config = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(backbone).to_dict())
    transform = create_transform(**config, normalize=False)
    picture = noise(300, 427, 3)
    expected = transform(Image.fromarray(picture)).numpy()
    assert (frame(picture, family.input_size(), family.framing()) == expected).all()


@pytest.mark.parametrize(("size", "resized"), [(224, 256), (128, 146), (384, 384)])
def test_masked_autoencoders_are_framed_as_their_authors_do(size, resized):
    framing = MaeViT(backbone="vit_base_patch16", image_size=(size, size)).framing()
    assert placement((1000, 1000), (size, size), framing).resized == (resized, resized)


@given(st.integers(8, 1024), st.integers(1, 1024))
@settings(max_examples=500, deadline=None, derandomize=True)
def test_two_sizes_make_a_share_that_gives_them_back(side, more):
    framing = Framing(crop_pct_of(side, side + more))
    assert placement((50, 50), (side, side), framing).resized == (side + more,) * 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_any_channels_and_types_are_framed_alike(channels, dtype):
    picture, framing = noise(40, 60, channels, dtype=dtype), Framing(0.875)
    found = frame(picture, (24, 24), framing)
    assert found.dtype == dtype
    for channel in range(channels):
        alone = frame(picture[..., channel], (24, 24), framing)
        assert (found[channel] == alone[0]).all()
    calm = (picture // 4 + 96).astype(dtype)  # 8 bits are clipped where the filter overshoots
    eight = frame(calm.astype(np.uint8), (24, 24), framing)
    difference = np.abs(frame(calm, (24, 24), framing).astype(float) - eight)
    assert difference.max() <= 1  # 8 bits are rounded after each axis


def test_sixteen_bits_do_not_wrap_where_the_filter_overshoots():
    edge = np.zeros((16, 16), np.uint16)
    edge[:, 8:] = 65535
    found = frame(edge, (40, 40), Framing())
    assert (np.diff(found[0].astype(int), axis=1) >= -4000).all()
    assert found.max() == 65535


@pytest.mark.parametrize("have", [(50_000, 3), (1, 400), (3, 50_000)])
def test_what_is_too_narrow_is_said_before_memory_is_taken(have):
    with pytest.raises(RecordError, match=r"too narrow; data\.crop_mode=squash or border takes it"):
        placement(have, (224, 224), Framing())
    for mode in ("squash", "border"):
        picture = np.zeros((*have, 3), np.uint8)
        assert frame(picture, (16, 16), Framing(crop_mode=mode)).shape == (3, 16, 16)


def test_one_pixel_becomes_its_colour():
    picture = np.array([[[10, 20, 30]]], np.uint8)
    found = frame(picture, (8, 8), Framing())
    assert (found == np.array([10, 20, 30]).reshape(3, 1, 1)).all()
