import numpy as np
import pytest

from artifactgen.rendering.image import display_images


def test_uint8_is_shown_as_it_is():
    image = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
    (shown,) = display_images(image)
    np.testing.assert_array_equal(shown, image.transpose(1, 2, 0))
    assert shown.flags.c_contiguous


def test_uint16_is_shown_over_its_full_range():
    image = np.array([[[0, 128, 129, 32768, 65535]]], np.uint16)
    (shown,) = display_images(image)
    np.testing.assert_array_equal(shown[0, :, 0], [0, 0, 1, 128, 255])


def test_one_channel_is_grey():
    image = np.random.default_rng(0).integers(0, 256, (1, 6, 7), np.uint8)
    (shown,) = display_images(image)
    assert shown.shape == (6, 7, 3)
    assert all((shown[..., channel] == image[0]).all() for channel in range(3))


def test_named_frames_are_pictures_of_their_own():
    image = np.random.default_rng(0).integers(0, 256, (3, 6, 7), np.uint8)
    shown = display_images(image, ("ED", "mid", "ES"))
    assert [picture.shape for picture in shown] == [(6, 7, 3)] * 3
    for picture, channel in zip(shown, image, strict=True):
        np.testing.assert_array_equal(picture[..., 1], channel)


@pytest.mark.parametrize("channels", [2, 4, 7])
def test_other_channel_counts_show_the_first(channels):
    image = np.random.default_rng(0).integers(0, 256, (channels, 6, 7), np.uint8)
    (shown,) = display_images(image)
    np.testing.assert_array_equal(shown[..., 2], image[0])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_in_the_unit_range_keep_their_brightness(dtype):
    (shown,) = display_images(np.array([[[0.2, 0.4, 0.6]]], dtype))
    np.testing.assert_array_equal(shown[0, :, 0], [51, 102, 153])


def test_other_floats_are_stretched_to_their_own_range():
    (shown,) = display_images(np.array([[[-2.0, 0.0, 2.0]]], np.float32))
    np.testing.assert_array_equal(shown[0, :, 0], [0, 128, 255])


def test_signed_integers_are_stretched_to_their_own_range():
    (shown,) = display_images(np.array([[[-1024, 1024, 3072]]], np.int16))
    np.testing.assert_array_equal(shown[0, :, 0], [0, 128, 255])


def test_each_frame_has_a_range_of_its_own():
    image = np.array([[[0.0, 2.0]], [[0.0, 200.0]]], np.float32)
    first, second = display_images(image, ("T1", "T2"))
    np.testing.assert_array_equal(first, second)


def test_nan_is_black_and_infinity_the_end_of_the_range():
    (shown,) = display_images(np.array([[[np.nan, -np.inf, -1, 3, np.inf]]], np.float32))
    np.testing.assert_array_equal(shown[0, :, 0], [0, 0, 0, 255, 255])


@pytest.mark.parametrize("value", [-3.0, 7.0, np.nan, np.inf])
def test_what_cannot_be_stretched_is_defined_and_silent(value):
    (shown,) = display_images(np.full((1, 4, 4), value, np.float32))
    assert len(np.unique(shown)) == 1
    assert value == np.inf or shown.max() == 0


def test_the_sample_is_left_alone():
    image = np.random.default_rng(0).normal(size=(3, 5, 5)).astype(np.float32)
    before = image.copy()
    display_images(image)
    np.testing.assert_array_equal(image, before)
