import io
import tracemalloc

import cv2
import numpy as np
import pytest
from PIL import Image

from artifactgen.errors import ConfigError, RecordError
from artifactgen.rendering.colormaps import lookup_table
from artifactgen.rendering.overlay import overlay, scale_cam, to_levels
from artifactgen.rendering.png import encode_animation
from artifactgen.rendering.saliency import SaliencyPictures, find_frame

FRAMES = ("ED", "mid", "ES")
SIZE = (48, 64)


def some_maps(classes=3):
    return np.random.default_rng(0).exponential(size=(classes, 6, 8)).astype(np.float32)


def some_images(count=1):
    return list(np.random.default_rng(1).integers(0, 256, (count, *SIZE, 3), np.uint8))


def drawn(images, cams, **style):
    texts = [{"Class": str(index)} for index in range(len(cams))]
    return list(SaliencyPictures(**style).draw(images, cams, texts))


def pixels(png):
    with Image.open(io.BytesIO(png)) as opened:
        return np.asarray(opened.convert("RGB"))


def text_of(png):
    with Image.open(io.BytesIO(png)) as opened:
        opened.load()
        return opened.text


@pytest.mark.parametrize("scale", ["map", "record", "absolute"])
def test_each_class_is_laid_over_the_image_at_its_size(scale):
    (image,), cams = some_images(), some_maps()
    pngs = drawn([image], cams, scale=scale, colormap="jet", opacity=0.4)
    maps = scale_cam(cams, SIZE, scale=scale)
    for index, (png, map_HW) in enumerate(zip(pngs, maps, strict=True)):
        expected = overlay(image, map_HW, colormap="jet", opacity=0.4)
        np.testing.assert_array_equal(pixels(png), expected)
        assert text_of(png) == {"Class": str(index)}


def test_one_scale_for_a_record_shows_which_class_is_stronger():
    strong = some_maps(1)
    cams = np.concatenate([strong, strong / 4])
    black = [np.zeros((*SIZE, 3), np.uint8)]
    by_map = [pixels(png) for png in drawn(black, cams, scale="map")]
    by_record = [pixels(png) for png in drawn(black, cams, scale="record")]
    np.testing.assert_array_equal(*by_map)
    assert by_record[1].mean() < by_record[0].mean() / 2


@pytest.mark.parametrize("scale", ["map", "record"])
def test_a_flat_map_leaves_the_image_as_it_is(scale):
    (image,) = some_images()
    noise = 1 + np.random.default_rng(0).uniform(-1e-7, 1e-7, (2, 6, 8))
    for png in drawn([image], (0.3 * noise).astype(np.float32), scale=scale):
        np.testing.assert_array_equal(pixels(png), image)


def test_frames_play_under_the_same_map():
    images, cams = some_images(3), some_maps(1)
    (png,) = drawn(images, cams)
    map_HW = scale_cam(cams, SIZE)[0]
    with Image.open(io.BytesIO(png)) as opened:
        assert (opened.size, opened.n_frames) == (SIZE[::-1], 3)
        for index, image in enumerate(images):
            opened.seek(index)
            np.testing.assert_array_equal(np.asarray(opened), overlay(image, map_HW))


def test_grey_frames_stay_grey_where_the_map_is_cold():
    grey = [np.full((*SIZE, 3), value, np.uint8) for value in (10, 90, 200)]
    (png,) = drawn(grey, np.zeros((1, 6, 8), np.float32))
    with Image.open(io.BytesIO(png)) as opened:
        for index, frame in enumerate(grey):
            opened.seek(index)
            np.testing.assert_array_equal(np.asarray(opened), frame)


def test_one_frame_is_a_still():
    images, cams = some_images(3), some_maps(1)
    (png,) = drawn(images, cams, frame=2)
    assert png == drawn([images[2]], cams)[0]
    assert b"acTL" not in png


def test_a_heat_map_is_the_map_in_256_colors_whatever_the_frames():
    cams = some_maps()
    for png, map_HW in zip(
        drawn(some_images(3), cams, style="heatmap", colormap="viridis"),
        scale_cam(cams, SIZE),
        strict=True,
    ):
        expected = lookup_table("viridis")[to_levels(map_HW)]
        np.testing.assert_array_equal(pixels(png), expected)
        bgr = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
        np.testing.assert_array_equal(bgr[..., ::-1], expected)


@pytest.mark.parametrize("style", ["overlay", "heatmap"])
def test_a_map_that_is_not_finite_fails_its_record(style):
    cams = some_maps()
    cams[1, 2, 3] = np.nan
    with pytest.raises(RecordError, match="NaN"):
        drawn(some_images(), cams, style=style)


@pytest.mark.parametrize("scale", ["map", "record", "absolute"])
def test_bytes_are_those_of_all_maps_scaled_at_once(scale):
    images, cams = some_images(2), some_maps(5)
    for index, map_HW in enumerate(scale_cam(cams, SIZE, scale=scale)):
        expected = encode_animation([overlay(i, map_HW) for i in images], {"Class": str(index)})
        assert drawn(images, cams, scale=scale)[index] == expected


@pytest.mark.parametrize("style", ["overlay", "heatmap"])
@pytest.mark.parametrize("scale", ["map", "record", "absolute"])
def test_a_thousand_classes_take_the_memory_of_one(scale, style):
    cams = np.random.default_rng(0).exponential(size=(1000, 14, 14)).astype(np.float32)
    images = [np.zeros((224, 224, 3), np.uint8)]
    pictures = SaliencyPictures(scale=scale, style=style)
    tracemalloc.start()
    try:
        count = sum(1 for _ in pictures.draw(images, cams, [{}] * len(cams)))
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 1000
    assert peak_bytes < 20e6, "all maps at the size of the image take 200 MB"


def test_frames_are_found_by_name():
    assert [find_frame(name, FRAMES, option="x") for name in FRAMES] == [0, 1, 2]
    assert find_frame("all", FRAMES, option="x") is None
    assert find_frame("all", (), option="x") is None


@pytest.mark.parametrize(("wanted", "names"), [("EDD", FRAMES), ("ED", ()), ("0", FRAMES)])
def test_a_frame_that_there_is_not_is_refused(wanted, names):
    with pytest.raises(ConfigError, match=f"gradcam.frames={wanted}"):
        find_frame(wanted, names, option="gradcam.frames")
