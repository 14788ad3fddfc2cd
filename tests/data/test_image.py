from __future__ import annotations

import numpy as np
import pytest

from artifactgen.data.image import centre_crop_or_pad, channels_first, resize, scale_to_unit


def test_crop_takes_the_centre_and_pad_adds_zeros_around_it() -> None:
    image_CHW = np.arange(1, 21, dtype=np.uint8).reshape(1, 4, 5)
    out = centre_crop_or_pad(image_CHW, (2, 7))
    assert out.dtype == np.uint8
    assert out[0].tolist() == [[0, 6, 7, 8, 9, 10, 0], [0, 11, 12, 13, 14, 15, 0]]


@pytest.mark.parametrize("have", [1, 2, 5, 6, 9])
@pytest.mark.parametrize("want", [1, 2, 5, 6, 9])
def test_crop_then_pad_back_keeps_what_was_in_the_middle(have: int, want: int) -> None:
    image_CHW = np.random.default_rng(0).random((2, have, have)).astype(np.float32)
    out = centre_crop_or_pad(image_CHW, (want, want))
    assert out.shape == (2, want, want)
    begin = abs(have - want) // 2
    inner = slice(begin, begin + min(have, want))
    if want <= have:
        assert np.array_equal(out, image_CHW[:, inner, inner])
    else:
        assert np.array_equal(out[:, inner, inner], image_CHW)
        assert np.isclose(out.sum(), image_CHW.sum())


def test_each_channel_is_scaled_to_its_own_range_and_a_constant_one_to_zeros() -> None:
    image_CHW = np.array([[[2, 4], [6, 10]], [[7, 7], [7, 7]], [[-3, -1], [-1, 1]]], np.int16)
    out = scale_to_unit(image_CHW)
    assert out.dtype == np.float32
    expected = [[[0, 0.25], [0.5, 1]], [[0, 0], [0, 0]], [[0, 0.5], [0.5, 1]]]
    assert np.array_equal(out, np.asarray(expected, np.float32))


def test_a_range_beyond_float32_is_scaled_without_overflow() -> None:
    largest = np.finfo(np.float32).max
    image_CHW = np.array([[[-largest, 0], [0, largest]]], np.float32)
    assert np.array_equal(scale_to_unit(image_CHW), np.array([[[0, 0.5], [0.5, 1]]], np.float32))


@pytest.mark.parametrize("channels", [1, 3, 4, 5, 17])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_shrinking_by_a_whole_factor_is_the_mean_over_each_block(
    channels: int, dtype: type
) -> None:
    image_CHW = np.random.default_rng(1).integers(0, 256, (channels, 12, 8)).astype(dtype)
    out = resize(image_CHW, (4, 2))
    mean = image_CHW.reshape(channels, 4, 3, 2, 4).astype(np.float64).mean(axis=(2, 4))
    assert out.dtype == dtype
    assert out.shape == (channels, 4, 2)
    assert np.abs(out - mean).max() <= (1e-4 if dtype is np.float32 else 0.5)


def _linear(values: np.ndarray, size: int) -> np.ndarray:
    """Linear interpolation along the last axis between centres of pixels, the ends repeated."""
    n = values.shape[-1]
    at = np.clip((np.arange(size) + 0.5) * n / size - 0.5, 0, n - 1)
    low = np.floor(at).astype(int)
    high = np.minimum(low + 1, n - 1)
    return values[..., low] * (1 - (at - low)) + values[..., high] * (at - low)


def test_growing_is_linear_between_the_centres_of_pixels() -> None:
    image_CHW = np.random.default_rng(2).random((3, 5, 7)).astype(np.float32)
    wide = _linear(image_CHW.astype(np.float64), 20)
    expected = _linear(wide.swapaxes(1, 2), 13).swapaxes(1, 2)
    assert np.abs(resize(image_CHW, (13, 20)) - expected).max() < 1e-5


def test_an_axis_may_shrink_while_the_other_grows() -> None:
    image_CHW = np.random.default_rng(3).random((2, 12, 5)).astype(np.float32)
    shrunk = image_CHW.reshape(2, 4, 3, 5).mean(axis=2)
    assert np.abs(resize(image_CHW, (4, 11)) - _linear(shrunk, 11)).max() < 1e-5


@pytest.mark.parametrize("size", [(3, 3), (64, 64), (3, 64)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_no_value_leaves_the_range_of_the_input(size: tuple[int, int], dtype: type) -> None:
    top = np.iinfo(dtype).max
    image_CHW = (np.indices((16, 16)).sum(axis=0) % 2 * top).astype(dtype)[None]
    out = resize(image_CHW, size)
    assert out.dtype == dtype
    unit = resize((image_CHW / top).astype(np.float32), size)
    assert unit.min() >= 0
    assert unit.max() <= 1
    assert np.abs(out / top - unit).max() < 1 / 100


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1, 9), (1, 50_000, 3)])
def test_odd_shapes_are_resized(shape: tuple[int, int, int]) -> None:
    out = resize(np.full(shape, 7, np.uint8), (8, 8))
    assert out.shape == (shape[0], 8, 8)
    assert (out == 7).all()


def test_the_same_size_costs_nothing() -> None:
    image_CHW = np.zeros((1, 4, 6), np.uint8)
    assert resize(image_CHW, (4, 6)) is image_CHW


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4"])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (1, 9, 2), (9, 1, 3), (7, 5, 3), (7, 5, 4), (7, 5, 6)]
)
def test_channels_come_first(shape: tuple[int, ...], dtype: str) -> None:
    image_HWC = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    for given in (image_HWC, image_HWC[::-1, ::-1]):
        found = channels_first(given)
        assert found.flags.c_contiguous
        assert found.dtype == dtype
        assert np.array_equal(found, given.transpose(2, 0, 1))
