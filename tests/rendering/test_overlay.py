import warnings

import numpy as np
import pytest
from pytorch_grad_cam.utils.image import scale_cam_image

from artifactgen.errors import RecordError
from artifactgen.rendering.colormaps import lookup_table
from artifactgen.rendering.overlay import heatmap, overlay, scale_cam, scale_each


def pytorch_grad_cam_scaling(cam_hw, size):
    """What BaseCAM.compute_cam_per_layer and aggregate_multi_layers do to one map."""
    scaled = scale_cam_image(np.maximum(cam_hw, 0)[None], size[::-1])[:, None]
    return scale_cam_image(np.mean(np.maximum(scaled, 0), axis=1))[0]


@pytest.mark.parametrize("grid", [(14, 14), (7, 7), (10, 16), (1, 5), (56, 56)])
@pytest.mark.parametrize("size", [(224, 224), (160, 256), (33, 40)])
@pytest.mark.parametrize("magnitude", [1e-9, 1e-3, 1.0, 1e4])
def test_scaling_is_that_of_pytorch_grad_cam(grid, size, magnitude):
    rng = np.random.default_rng(hash((grid, size)) % 1000)
    cam = (rng.normal(size=grid) * magnitude).astype(np.float32)
    np.testing.assert_allclose(scale_cam(cam, size), pytorch_grad_cam_scaling(cam, size), atol=1e-6)


def test_a_map_without_negative_values_keeps_no_offset():
    cam = np.random.default_rng(0).uniform(5, 6, (14, 14)).astype(np.float32)
    scaled = scale_cam(cam, (224, 224))
    np.testing.assert_allclose(scaled, pytorch_grad_cam_scaling(cam, (224, 224)), atol=1e-6)
    assert scaled.min() == 0
    assert scaled.max() == pytest.approx(1, abs=1e-5)


def test_leading_dimensions_are_maps_of_their_own():
    cams = np.random.default_rng(0).normal(size=(2, 5, 14, 14)).astype(np.float32)
    scaled = scale_cam(cams, (64, 48))
    assert scaled.shape == (2, 5, 64, 48)
    assert scaled.dtype == np.float32
    for index in np.ndindex(2, 5):
        np.testing.assert_array_equal(scaled[index], scale_cam(cams[index], (64, 48)))


@pytest.mark.parametrize("scale", ["map", "record"])
@pytest.mark.parametrize("value", [0.0, -3.0, 1e-30, 0.1, 1e6])
def test_a_flat_map_is_zero_and_no_noise(scale, value):
    noise = np.random.default_rng(0).uniform(-1e-7, 1e-7, (3, 14, 14))
    cams = (value * (1 + noise)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (scale_cam(cams, (64, 64), scale=scale) == 0).all()


def test_a_flat_map_does_not_hide_the_others():
    cams = np.random.default_rng(0).uniform(size=(3, 7, 7)).astype(np.float32)
    cams[1] = 0.5
    scaled = scale_cam(cams, (28, 28))
    assert (scaled[1] == 0).all()
    assert scaled[[0, 2]].max() > 0.99


def test_one_scale_for_a_record_keeps_its_maps_comparable():
    cam = np.random.default_rng(0).uniform(0, 1, (14, 14)).astype(np.float32)
    cam.flat[0] = 0
    strong, weak = scale_cam(np.stack([cam, cam / 4]), (56, 56), scale="record")
    np.testing.assert_allclose(weak, strong / 4, atol=1e-6)
    assert strong.max() == pytest.approx(1, abs=1e-5)


def test_absolute_takes_values_as_they_are():
    cam = np.array([[-1.0, 0.25], [0.5, 7.0]], np.float32)
    np.testing.assert_array_equal(
        scale_cam(cam, (2, 2), scale="absolute"), np.array([[0, 0.25], [0.5, 1]], np.float32)
    )


@pytest.mark.parametrize("scale", ["map", "record", "absolute"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_map_that_is_not_finite_fails_its_record(scale, value):
    cam = np.ones((7, 7), np.float32)
    cam[3, 3] = value
    with pytest.raises(RecordError, match="NaN"):
        scale_cam(cam, (28, 28), scale=scale)


@pytest.mark.parametrize("scale", ["map", "record", "absolute"])
@pytest.mark.parametrize("magnitude", [1e-9, 0.3, 1e4])
@pytest.mark.parametrize("size", [(224, 224), (33, 40)])
def test_one_at_a_time_is_the_same_to_the_bit(scale, magnitude, size):
    cams = np.random.default_rng(0).normal(size=(7, 14, 14)).astype(np.float32)
    cams *= magnitude * np.float32(3) ** -np.arange(7, dtype=np.float32)[:, None, None]
    cams[2], cams[4] = magnitude, 0
    each = np.stack(list(scale_each(cams, size, scale=scale)))
    assert each.dtype == np.float32
    np.testing.assert_array_equal(each, scale_cam(cams, size, scale=scale))


@pytest.mark.parametrize("scale", ["map", "record", "absolute"])
def test_one_at_a_time_no_map_comes_before_a_later_one_is_found_not_finite(scale):
    cams = np.ones((3, 7, 7), np.float32)
    cams[2, 3, 3] = np.nan
    with pytest.raises(RecordError, match="NaN"):
        next(scale_each(cams, (28, 28), scale=scale))


def test_the_map_is_left_alone():
    cam = np.random.default_rng(0).normal(size=(14, 14)).astype(np.float32)
    before = cam.copy()
    scale_cam(cam, (28, 28))
    np.testing.assert_array_equal(cam, before)


def test_a_heat_map_has_the_color_of_each_value():
    table = lookup_table("viridis")
    map01 = np.array([[0, 1 / 255, 0.5019608, 1]], np.float32)
    np.testing.assert_array_equal(heatmap(map01, colormap="viridis")[0], table[[0, 1, 128, 255]])


def test_cold_areas_show_the_image_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    np.testing.assert_array_equal(overlay(image, np.zeros((20, 30), np.float32)), image)


@pytest.mark.parametrize("opacity", [0.0, 0.35, 0.6, 1.0])
def test_an_overlay_is_the_documented_blend(opacity):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 64, 3), np.uint8)
    map01 = rng.uniform(size=(64, 64)).astype(np.float32)
    alpha = opacity * np.minimum(1, 2 * map01)[..., None]
    expected = (1 - alpha) * image + alpha * heatmap(map01, colormap="jet")
    drawn = overlay(image, map01, colormap="jet", opacity=opacity)
    assert drawn.dtype == np.uint8
    assert np.abs(drawn - expected).max() <= 2


def test_the_image_under_an_overlay_is_left_alone():
    image = np.full((8, 8, 3), 200, np.uint8)
    overlay(image, np.ones((8, 8), np.float32))
    assert (image == 200).all()
