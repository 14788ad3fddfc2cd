"""Maps over a picture of which the model saw a part: held against other ways to compute them."""

from __future__ import annotations

import io
from itertools import combinations

import cv2
import matplotlib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from artifactgen.rendering.figure.attention import AttentionFigure, FigureSpec
from artifactgen.rendering.figure.forms import AttentionFigures, form_of, mean_panel
from artifactgen.rendering.overlay import overlay, resize_maps, scale_cam
from artifactgen.rendering.placing import BESIDE, Canvas, canvas_of, outline, pixels_in
from artifactgen.rendering.saliency import SaliencyPictures
from artifactgen.types import Region, Sample, Stored

SIZE = (41, 57)
REGIONS = {
    "within": Region(3.3, 7.9, 30.2, 28.4),
    "whole pixels": Region(4, 6, 28, 30),
    "beyond": Region(-8.5, 0, 58, 57),
    "beyond two corners": Region(-3.2, 20.7, 20, 60),
    "less than a pixel": Region(20.6, 30.7, 0.3, 0.2),
}


def a_map(seed: int = 0, size: tuple[int, int] = (7, 5)) -> NDArray[np.float32]:
    return np.random.default_rng(seed).exponential(size=size).astype(np.float32)


def a_picture(size: tuple[int, int] = SIZE, seed: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def pixels(png: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(png)) as opened:
        return np.asarray(opened.convert("RGB"))


def value_at(map_hw: NDArray[np.float32], region: Region, y: int, x: int) -> float:
    """One pixel's value, spelled out."""
    height, width = map_hw.shape
    row = np.clip((y + 0.5 - region.top) / region.height * height - 0.5, 0, height - 1)
    column = np.clip((x + 0.5 - region.left) / region.width * width - 0.5, 0, width - 1)
    top, left = int(row), int(column)
    below, right = min(top + 1, height - 1), min(left + 1, width - 1)
    f, g = row - top, column - left
    upper = map_hw[top, left] * (1 - g) + map_hw[top, right] * g
    return float(upper * (1 - f) + (map_hw[below, left] * (1 - g) + map_hw[below, right] * g) * f)


@pytest.mark.parametrize("name", REGIONS)
def test_each_pixel_has_the_value_at_its_centre(name: str) -> None:
    region, map_hw = REGIONS[name], a_map()
    rows, columns = pixels_in(region, SIZE)
    placed = resize_maps(map_hw, SIZE, region=region)
    expected = [
        [value_at(map_hw, region, y, x) for x in range(columns.start, columns.stop)]
        for y in range(rows.start, rows.stop)
    ]
    np.testing.assert_allclose(placed, np.array(expected), rtol=0, atol=1e-6)
    assert placed.size > 0


@pytest.mark.parametrize("name", ["within", "beyond", "beyond two corners"])
def test_colour_ends_at_the_pixels_whose_centres_the_model_saw(name: str) -> None:
    region = REGIONS[name]
    rows, columns = pixels_in(region, SIZE)
    y, x = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    seen = (y >= region.top) & (y < region.top + region.height)
    seen &= (x >= region.left) & (x < region.left + region.width)
    mask = np.zeros(SIZE, bool)
    mask[rows, columns] = True
    np.testing.assert_array_equal(mask, seen)


@pytest.mark.parametrize("cells", [(7, 5), (14, 14), (1, 1), (60, 90)])
def test_whole_pixels_are_as_opencv_resizes(cells: tuple[int, int]) -> None:
    map_hw = a_map(size=cells)
    placed = resize_maps(map_hw, SIZE, region=Region(4, 6, 28, 30))
    np.testing.assert_allclose(placed, cv2.resize(map_hw, (30, 28)), rtol=0, atol=2e-6)


def test_a_border_is_cut_away() -> None:
    """As a padded picture gives that is cut afterwards."""
    map_hw = a_map()
    padded = resize_maps(map_hw, (57, 57))
    placed = resize_maps(map_hw, SIZE, region=Region(-8, 0, 57, 57))
    np.testing.assert_allclose(placed, padded[8:49], rtol=0, atol=1e-6)


def test_an_enlarged_picture_is_drawn_on_as_a_reference_does() -> None:
    """The model saw 224 × 224 out of 256 × 384, and the source has twice as many pixels."""
    picture, cam_hw = a_picture((512, 768)), a_map(size=(14, 14))
    region = Region(16, 80, 224, 224).scaled(2, 2)
    (png,) = SaliencyPictures().draw([picture], cam_hw[None], [{}], region=region)
    rect = np.s_[32:480, 160:608]
    scaled = (cam_hw - cam_hw.min()) / (1e-7 + np.ptp(cam_hw))
    large = cv2.resize(scaled, (448, 448))
    large = (large - large.min()) / (1e-7 + np.ptp(large))
    expected = picture[rect].astype(float)
    table = matplotlib.colormaps["inferno"](np.arange(256))[:, :3] * 255
    colour = table[np.rint(large * 255).astype(int)]
    alpha = 0.6 * np.minimum(1, 2 * large)[..., None]
    expected = (1 - alpha) * expected + alpha * colour
    found = pixels(png)
    assert np.abs(found[rect] - expected).max() <= 2.5  # levels of 1/255, rounded twice
    outside = np.ones(picture.shape[:2], bool)
    outside[28:484, 156:612] = False  # the line is four pixels wide
    np.testing.assert_array_equal(found[outside], picture[outside])


@pytest.mark.parametrize("scale", ["map", "record", "absolute"])
@pytest.mark.parametrize("style", ["overlay", "heatmap"])
def test_a_region_that_is_all_changes_no_byte(scale: str, style: str) -> None:
    cams, images = np.stack([a_map(0), a_map(1)]), [a_picture(), a_picture(seed=2)]
    pictures = SaliencyPictures(style=style, scale=scale)  # type: ignore[arg-type]
    plain = list(pictures.draw(images, cams, [{}, {}]))
    whole = list(pictures.draw(images, cams, [{}, {}], region=Region(0, 0, *SIZE)))
    assert whole == plain


@pytest.mark.parametrize("name", REGIONS)
@pytest.mark.parametrize("scale", ["map", "record"])
def test_every_frame_is_drawn_on_at_the_same_place(name: str, scale: str) -> None:
    region, cams = REGIONS[name], a_map()[None]
    images = [a_picture(seed=seed) for seed in (2, 3, 4)]
    pictures = SaliencyPictures(scale=scale)  # type: ignore[arg-type]
    (png,) = pictures.draw(images, cams, [{}], region=region)
    seen = pixels_in(region, SIZE)
    map_HW = scale_cam(cams[0], SIZE, region=region)
    with Image.open(io.BytesIO(png)) as opened:
        assert (opened.size, opened.n_frames) == (SIZE[::-1], 3)
        for index, image in enumerate(images):
            opened.seek(index)
            found = np.asarray(opened)[seen]
            np.testing.assert_array_equal(found, overlay(image[seen], map_HW))


def test_a_heat_map_is_grey_where_the_model_saw_nothing() -> None:
    region = REGIONS["within"]
    pictures = SaliencyPictures(style="heatmap")
    (png,) = pictures.draw([a_picture()], a_map()[None], [{}], region=region)
    found = pixels(png)
    mask = np.zeros(SIZE, bool)
    mask[pixels_in(region, SIZE)] = True
    assert found.shape[:2] == SIZE
    assert (found[~mask] == BESIDE).all()
    assert (found[mask] != BESIDE).any(1).mean() > 0.9


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (2, 2)])
def test_the_smallest_pictures_are_drawn_on(size: tuple[int, int]) -> None:
    region = Region(0.3 * size[0], 0.3 * size[1], 0.4 * size[0], 0.4 * size[1])
    (png,) = SaliencyPictures().draw([a_picture(size)], a_map()[None], [{}], region=region)
    assert pixels(png).shape[:2] == size


def test_a_line_surrounds_what_was_seen_and_hides_nothing_of_it() -> None:
    picture = a_picture((600, 600))
    lined = picture.copy()
    outline(lined, np.s_[100:500, 0:400])
    np.testing.assert_array_equal(lined[100:500, 0:400], picture[100:500, 0:400])
    assert (lined[98:100, 0:402] == 255).all()
    assert (lined[96:98, 0:404] == 0).all()
    assert (lined[98:502, 400:402] == 255).all()
    changed = (lined != picture).any(-1)
    assert not changed[:96].any()
    assert not changed[504:].any()
    assert not changed[:, 404:].any()


def test_a_large_picture_is_reduced_with_what_was_seen_of_it() -> None:
    stored = np.zeros((3, 400, 1000), np.uint8)
    stored[:, 100:300, 500:700] = 255
    region = Region(100, 500, 200, 200)
    sample = Sample("a", 0, stored[:, :8, :8], stored=Stored(region, lambda: stored))
    canvas = canvas_of(sample, longest_px=250)
    assert canvas.size == (100, 250)
    assert canvas.region == Region(25, 125, 50, 50)
    assert (canvas.images[0][pixels_in(canvas.region, canvas.size)] == 255).all()
    assert canvas_of(sample, longest_px=1000).size == (400, 1000)
    assert canvas_of(Sample("a", 0, stored[:, :8, :8])).region is None


SPEC = FigureSpec(3, ("Block 11",), (224, 224), tokens=197)


@pytest.mark.parametrize("size", [(427, 640), (640, 427), (300, 301), (100, 1200), (1, 50), (9, 7)])
def test_a_figure_shows_the_whole_picture_in_its_form(size: tuple[int, int]) -> None:
    figure = AttentionFigures(SPEC).of(size)
    region = Region(0.1 * size[0], 0.2 * size[1], 0.8 * size[0], 0.3 * size[1])
    picture = np.full((*size, 3), (0, 200, 0), np.uint8)
    drawn = figure.draw(
        [picture], a_map(size=(1, 3, 14, 14)), title="a", subtitle="b", region=region
    )
    assert drawn.shape[1] >= 1800
    (band,) = figure.geometry.bands
    panel = drawn[band.inputs[0].pixels]
    green = (panel == (0, 200, 0)).all(-1)
    assert green.any()
    rows, columns = np.flatnonzero(green.any(1)), np.flatnonzero(green.any(0))
    form = (np.ptp(rows) + 1) / (np.ptp(columns) + 1)
    assert abs(np.log(form / np.clip(size[0] / size[1], 1 / 8, 8))) < 0.06
    assert green.mean() > 0.75


def test_the_maps_of_heads_lie_where_the_model_looked() -> None:
    figure = AttentionFigures(SPEC).of((300, 400))
    region = Region(50, 100, 200, 200)
    drawn = figure.draw(
        [a_picture((300, 400))], a_map(size=(1, 3, 14, 14)), title="a", subtitle="b", region=region
    )
    for panel in figure.geometry.bands[0].heads:
        grey = (drawn[panel.pixels] == BESIDE).all(-1)
        rows = slice(round(panel.height / 6), round(panel.height * 5 / 6))
        columns = slice(round(panel.width / 4), round(panel.width * 3 / 4))
        expected = np.ones_like(grey)
        expected[rows, columns] = False
        assert (grey != expected).mean() < 0.02


def test_a_figure_of_the_models_own_size_has_the_same_bytes() -> None:
    image, attention = a_picture((224, 224)), a_map(size=(1, 3, 14, 14))
    plain = AttentionFigure(SPEC).draw([image], attention, title="a", subtitle="b")
    figure = AttentionFigures(SPEC).of((224, 224))
    whole = Region(0, 0, 224, 224)
    assert figure.draw([image], attention, title="a", subtitle="b", region=whole).tobytes() == (
        plain.tobytes()
    )


@pytest.mark.parametrize("size", [(427, 640), (640, 427), (224, 224), (310, 300)])
def test_the_excerpt_of_a_figure_is_the_picture_under_the_mean(size: tuple[int, int]) -> None:
    figure = AttentionFigures(SPEC).of(size)
    picture = np.full((*size, 3), (0, 200, 0), np.uint8)
    maps = np.zeros((1, 3, 14, 14), np.float32)
    drawn = figure.draw([picture], maps, title="a", subtitle="b", region=Region(0, 0, *size))
    assert (drawn[mean_panel(SPEC, size).pixels] == (0, 200, 0)).all()


def test_forms_are_few_and_near_to_every_picture() -> None:
    forms = {form_of((a, b), (224, 224)) for a in range(1, 80) for b in range(1, 80)}
    assert len(forms) <= 18
    for a, b in combinations(range(10, 60), 2):
        height, width = form_of((a, b), (224, 224))
        if b / a < 3:
            assert abs(np.log(a / b * width / height)) < 0.21


def test_one_figure_serves_all_pictures_of_a_form() -> None:
    figures = AttentionFigures(SPEC)
    assert figures.of((300, 400)) is figures.of((768, 1024))
    assert figures.of((448, 448)) is figures.own


def test_the_canvas_of_some_frames_keeps_all_of_them() -> None:
    images = [a_picture(seed=seed) for seed in (1, 2, 3)]
    canvas = Canvas(images, REGIONS["within"]).resized((20, 30))
    assert [image.shape for image in canvas.images] == [(20, 30, 3)] * 3
    assert canvas.region == REGIONS["within"].scaled(20 / 41, 30 / 57)
