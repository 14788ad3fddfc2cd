import itertools
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import matplotlib
import numpy as np
import pytest

from artifactgen.errors import ConfigError, RecordError
from artifactgen.rendering.colormaps import lookup_table
from artifactgen.rendering.figure.arrange import arrange
from artifactgen.rendering.figure.attention import AttentionFigure, FigureSpec
from artifactgen.rendering.figure.geometry import Sizes
from artifactgen.rendering.overlay import heatmap, resize_maps

FRAMES = ("ED", "mid", "ES")
INFERNO = lookup_table("inferno")


def a_layout(heads=12, blocks=1, image_size=(224, 224), frame_names=(), width_px=1800):
    names = tuple(f"Block {index}" for index in range(blocks))
    return FigureSpec(
        heads=heads,
        blocks=names,
        image_size=image_size,
        frame_names=frame_names,
        width_px=width_px,
    )


def a_record(layout, grid=(14, 14), seed=0):
    rng = np.random.default_rng(seed)
    pictures = layout.pictures
    images = [rng.integers(0, 256, (*layout.image_size, 3), np.uint8) for _ in range(pictures)]
    weights = rng.exponential(size=(len(layout.blocks), layout.heads, *grid)).astype(np.float32)
    return images, weights / weights.sum(axis=(-2, -1), keepdims=True)


def drawn(figure, images, attention, title="patient_123", subtitle="true DCM"):
    return figure.draw(images, attention, title=title, subtitle=subtitle)


def overlap(a, b):
    return a.left < b.right and b.left < a.right and a.top < b.bottom and b.top < a.bottom


@pytest.mark.parametrize("heads", [1, 3, 6, 7, 12, 16, 24])
@pytest.mark.parametrize("blocks", [1, 2, 4])
@pytest.mark.parametrize("frame_names", [(), FRAMES])
def test_panels_lie_inside_apart_and_alike(heads, blocks, frame_names):
    for image_size in [(224, 224), (160, 256), (256, 128), (20, 300), (300, 20)]:
        layout = a_layout(heads, blocks, image_size, frame_names)
        geometry = arrange(layout)
        height, width = geometry.size
        margin = Sizes.for_width(width).margin
        rects = [geometry.title, geometry.subtitle]
        for band in geometry.bands:
            assert len(band.inputs) == len(band.means) == layout.pictures
            assert len(band.heads) == heads
            assert len({panel.size for panel in band.heads}) == 1
            assert len({panel.size for panel in band.inputs + band.means}) == 1
            rects += [band.heading, *band.panels, *map(band.caption, band.panels), band.colorbar]
        assert width >= 1800
        assert len(geometry.bands) == blocks
        for rect in rects:
            assert rect.width > 0
            assert rect.height > 0
            assert margin <= rect.left < rect.right <= width - margin
            assert margin <= rect.top < rect.bottom <= height - margin
        assert not any(itertools.starmap(overlap, itertools.combinations(rects, 2)))


@pytest.mark.parametrize("heads", [1, 3, 6, 12, 16, 24])
@pytest.mark.parametrize("image_size", [(224, 224), (160, 256), (256, 128)])
def test_panels_keep_the_aspect_of_the_image_and_can_be_read(heads, image_size):
    for frame_names, blocks in itertools.product([(), FRAMES], [1, 2, 4]):
        for panel in (
            band := arrange(a_layout(heads, blocks, image_size, frame_names)).bands[0]
        ).panels:
            assert panel.height / panel.width == pytest.approx(
                image_size[0] / image_size[1], rel=0.02
            )
            assert min(panel.size) >= 80
        assert max(panel.bottom for panel in band.heads) == band.colorbar.bottom
        assert abs(max(panel.bottom for panel in band.means) - band.colorbar.bottom) <= 4


@pytest.mark.parametrize("image_size", [(50_000, 3), (3, 50_000), (1, 1)])
def test_a_stripe_of_an_image_makes_no_monster_of_a_figure(image_size):
    height, width = arrange(a_layout(image_size=image_size)).size
    assert 300 < height < 3 * width


@pytest.mark.parametrize("heads", [6, 12, 16, 24])
def test_no_place_stays_empty_where_heads_fill_a_grid(heads):
    band = arrange(a_layout(heads)).bands[0]
    rows = len({panel.top for panel in band.heads})
    columns = len({panel.left for panel in band.heads})
    assert rows * columns == heads


@pytest.mark.parametrize("width_px", [1800, 1801, 2345, 3600])
def test_a_figure_is_as_wide_as_asked(width_px):
    layout = a_layout(heads=3, width_px=width_px)
    figure = AttentionFigure(layout)
    assert drawn(figure, *a_record(layout)).shape == (*figure.geometry.size, 3)
    assert figure.geometry.size[1] == width_px


def test_a_figure_too_narrow_to_read_is_refused():
    with pytest.raises(ConfigError, match="1800"):
        a_layout(width_px=1799)


def test_an_unknown_colormap_is_found_before_any_record():
    with pytest.raises(ConfigError, match="Did you mean"):
        AttentionFigure(a_layout(), colormap="virdis")


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic"])
def test_panels_of_constant_maps_have_the_color_of_their_value(interpolation):
    layout = a_layout(heads=12, blocks=2)
    figure = AttentionFigure(layout, colormap="inferno", interpolation=interpolation)
    images, attention = a_record(layout)
    constants = np.linspace(0, 0.02, 24, dtype=np.float32).reshape(2, 12)
    attention[:] = constants[..., None, None]
    canvas = drawn(figure, images, attention)
    for band, values in zip(figure.geometry.bands, constants, strict=True):
        for panel, value in zip(band.heads, values, strict=True):
            level = round(float(255 * value / values.max()))
            assert (canvas[panel.pixels] == INFERNO[level]).all()


def test_nearest_shows_each_patch_in_the_color_of_its_weight():
    layout = a_layout(heads=6)
    figure = AttentionFigure(layout, interpolation="nearest", clip_percentile=100)
    images, attention = a_record(layout, grid=(7, 7))
    canvas = drawn(figure, images, attention)
    levels = np.rint(255 * attention[0] / attention.max()).astype(int)
    for panel, expected in zip(figure.geometry.bands[0].heads, levels, strict=True):
        rows = ((np.arange(7) + 0.5) / 7 * panel.height).astype(int)
        columns = ((np.arange(7) + 0.5) / 7 * panel.width).astype(int)
        np.testing.assert_array_equal(
            canvas[panel.pixels][np.ix_(rows, columns)], INFERNO[expected]
        )


def test_panels_hold_the_interpolated_map_and_nothing_else():
    layout = a_layout(heads=6, frame_names=FRAMES)
    figure = AttentionFigure(layout, clip_percentile=100)
    images, attention = a_record(layout)
    canvas = drawn(figure, images, attention, title="x" * 300, subtitle="y" * 300)
    (band,) = figure.geometry.bands
    maps = resize_maps(attention[0] / attention.max(), band.heads[0].size)
    for panel, map01 in zip(band.heads, maps, strict=True):
        np.testing.assert_array_equal(canvas[panel.pixels], heatmap(map01))


def test_pictures_and_means_show_the_frames_in_order():
    layout = a_layout(heads=6, frame_names=FRAMES)
    figure = AttentionFigure(layout)
    images = [np.full((224, 224, 3), grey, np.uint8) for grey in (20, 90, 200)]
    canvas = drawn(figure, images, np.zeros((1, 6, 14, 14), np.float32))
    (band,) = figure.geometry.bands
    for panels in (band.inputs, band.means):
        assert [int(canvas[panel.pixels].mean()) for panel in panels] == [20, 90, 200]


def test_the_mean_is_drawn_over_its_own_range():
    layout = a_layout(heads=2)
    figure = AttentionFigure(layout, opacity=1.0)
    attention = np.zeros((1, 2, 2, 2), np.float32)
    attention[0, 0, :, 1] = 0.4
    canvas = drawn(figure, [np.zeros((224, 224, 3), np.uint8)], attention)
    mean = canvas[figure.geometry.bands[0].means[0].pixels]
    np.testing.assert_array_equal(mean[:, -1], np.broadcast_to(INFERNO[255], mean[:, -1].shape))
    assert (mean[:, 0] == 0).all()


def test_one_outlier_does_not_leave_the_other_heads_black():
    layout = a_layout(heads=12)
    images, attention = a_record(layout)
    attention[0, 5, 3, 3] = 1.0
    (band,) = arrange(layout).bands
    robust = drawn(AttentionFigure(layout), images, attention)[band.heads[0].pixels]
    linear = drawn(AttentionFigure(layout, clip_percentile=100), images, attention)
    assert robust.mean() > 5 * linear[band.heads[0].pixels].mean()


def test_the_colorbar_runs_from_the_lowest_to_the_highest_color():
    layout = a_layout(blocks=2)
    figure = AttentionFigure(layout, colormap="viridis")
    canvas = drawn(figure, *a_record(layout))
    for band in figure.geometry.bands:
        bar = canvas[band.colorbar.pixels]
        np.testing.assert_array_equal(bar[0, 0], lookup_table("viridis")[255])
        np.testing.assert_array_equal(bar[-1, -1], lookup_table("viridis")[0])


def test_what_even_attention_would_give_is_marked_beside_the_bar_alone():
    plain = a_layout(blocks=2)
    marked = replace(plain, tokens=197)
    images, attention = a_record(plain)
    canvases = [drawn(AttentionFigure(layout), images, attention) for layout in (plain, marked)]
    differs = (canvases[0] != canvases[1]).any(-1)
    for band in AttentionFigure(marked).geometry.bands:
        bar = band.colorbar
        beside = differs[bar.top : bar.bottom, bar.left - 10 :]
        assert beside.any()
        (rows,) = np.nonzero(differs[bar.top : bar.bottom, bar.left - 4])
        assert len(rows) == 2
        top = np.percentile(attention[0], 99.5, method="higher")
        assert abs((bar.height - rows.mean()) / bar.height - 1 / 197 / top) < 0.15
        differs[bar.top - 12 : bar.bottom + 12, bar.left - 10 :] = False
    assert not differs.any()


def test_where_all_weights_are_less_only_the_label_at_the_end_says_so():
    layout = replace(a_layout(), tokens=2)
    images, attention = a_record(layout)
    attention = np.minimum(attention, np.percentile(attention, 50))
    (band,) = AttentionFigure(layout).geometry.bands
    differs = (
        drawn(AttentionFigure(layout), images, attention)
        != drawn(AttentionFigure(a_layout()), images, attention)
    ).any(-1)
    bar = band.colorbar
    assert differs[bar.top - 12 : bar.top + 12, bar.right :].any()
    differs[bar.top - 12 : bar.top + 12, bar.right :] = False
    differs[:, bar.right :] = False  # a label too near to the end is left out
    assert not differs.any()


HOSTILE = [
    "",
    "x" * 200,
    "W" * 5000,
    "line\nbreak\0nul\udc80 $\\frac{1}$ \u202eabc",
    "Ünïcödé 🫀" * 30,
    "$not math$",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_is_clipped_or_runs_into_the_margin(text):
    layout = FigureSpec(
        heads=12,
        blocks=(text[:300], "Block 11"),
        image_size=(60, 224),
        frame_names=("ED", "y" * 99),
    )
    figure = AttentionFigure(layout)
    images, attention = a_record(layout)
    canvas = drawn(figure, images, attention, title=text, subtitle=text)
    edge = Sizes.for_width(1800).margin // 2
    inside = np.zeros(canvas.shape[:2], bool)
    inside[edge:-edge, edge:-edge] = True
    assert (canvas[~inside] == 255).all()


def test_two_long_ids_that_differ_at_their_end_look_different():
    layout = a_layout(heads=3)
    figure = AttentionFigure(layout)
    record = a_record(layout)
    first = drawn(figure, *record, title="x" * 199 + "1")
    assert (first != drawn(figure, *record, title="x" * 199 + "7")).any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_fail_their_record(value):
    layout = a_layout(heads=3)
    images, attention = a_record(layout)
    attention[0, 1, 2, 3] = value
    with pytest.raises(RecordError, match="NaN"):
        drawn(AttentionFigure(layout), images, attention)


def test_equal_layouts_draw_equal_bytes_and_leave_their_input_alone():
    layout = a_layout(heads=6, frame_names=FRAMES)
    images, attention = a_record(layout)
    copies = [image.copy() for image in images], attention.copy()
    figure = AttentionFigure(layout)
    first = drawn(figure, images, attention)
    drawn(figure, *a_record(layout, seed=1), title="another, longer than the first")
    assert drawn(figure, *copies).tobytes() == first.tobytes()
    assert drawn(AttentionFigure(layout), *copies).tobytes() == first.tobytes()
    np.testing.assert_array_equal(attention, copies[1])


def test_threads_draw_what_one_thread_draws():
    layout = a_layout(heads=6)
    figure = AttentionFigure(layout)
    jobs = [(f"patient_{seed:03d}", *a_record(layout, seed=seed)) for seed in range(12)]

    def draw(job):
        title, images, attention = job
        return drawn(figure, images, attention, title=title).tobytes()

    one_by_one = [draw(job) for job in jobs]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(draw, jobs)) == one_by_one
    finally:
        sys.setswitchinterval(interval)


def test_a_users_matplotlib_settings_neither_show_nor_change():
    layout = a_layout(heads=3)
    record = a_record(layout)
    plain = drawn(AttentionFigure(layout), *record)
    ours = {"figure.facecolor": "red", "text.color": "lime", "savefig.dpi": 17, "font.size": 40}
    with matplotlib.rc_context(ours):
        before = dict(matplotlib.rcParams)
        styled = drawn(AttentionFigure(layout), *record)
        assert dict(matplotlib.rcParams) == before
    np.testing.assert_array_equal(styled, plain)


def test_pyplot_holds_no_figure():
    from matplotlib import pyplot

    AttentionFigure(a_layout(heads=3))
    assert pyplot.get_fignums() == []
