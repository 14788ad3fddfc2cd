import itertools

import numpy as np
import pytest

from artifactgen.rendering import sheet as sheets
from artifactgen.rendering.figure.geometry import MIN_WIDTH_PX, Sizes
from artifactgen.rendering.sheet import EMPTY, PAPER, WRONG, Card, Sheet, draw_sheet

COLUMNS = ("Input", "GradCAM, true", "GradCAM, predicted", "Mean attention")
SIZES = Sizes.for_width(MIN_WIDTH_PX)


def a_picture(value, size=(64, 64)):
    return np.full((*size, 3), value, np.uint8)


def a_sheet(cards=5, columns=COLUMNS, image_size=(64, 64), title="patient001", panel=None):
    made = tuple(
        Card(
            title,
            "✗ wrong · true HCM · predicted DCM",
            is_wrong=index % 2 == 0,
            panels=tuple(
                a_picture(10 * index + column, image_size) if panel is None else panel
                for column in range(len(columns))
            ),
        )
        for index in range(cards)
    )
    return Sheet("Overview of test", "5 of 20 records", columns, made, image_size)


def places(sheet):
    grid = sheets._arrange(sheet, SIZES)
    return [grid.slots(grid.place(index)) for index in range(len(sheet.cards))]


def test_each_record_has_its_pictures_in_its_place():
    sheet = a_sheet()
    canvas = draw_sheet(sheet)
    assert canvas.shape[1] == MIN_WIDTH_PX
    for index, slots in enumerate(places(sheet)):
        for column, slot in enumerate(slots):
            assert (canvas[slot.pixels] == 10 * index + column).all()


@pytest.mark.parametrize("columns", range(1, 10))
@pytest.mark.parametrize("image_size", [(224, 224), (160, 256), (256, 128), (3, 900), (900, 3)])
def test_panels_lie_inside_and_apart(columns, image_size):
    sheet = a_sheet(7, tuple(f"Column {index}" for index in range(columns)), image_size)
    height, width = draw_sheet(sheet).shape[:2]
    slots = list(itertools.chain.from_iterable(places(sheet)))
    assert len(slots) == 7 * columns
    assert len({slot.size for slot in slots}) == 1
    for slot in slots:
        assert SIZES.margin <= slot.left < slot.right <= width - SIZES.margin
        assert SIZES.margin < slot.top < slot.bottom <= height - SIZES.margin
    for a, b in itertools.combinations(slots, 2):
        assert a.right <= b.left or b.right <= a.left or a.bottom <= b.top or b.bottom <= a.top


@pytest.mark.parametrize("image_size", [(224, 224), (160, 256), (256, 128)])
def test_panels_keep_the_aspect_and_can_be_seen(image_size):
    for columns in (1, 2, 3, 4):
        slot = places(a_sheet(3, COLUMNS[:columns], image_size))[0][0]
        assert slot.height / slot.width == pytest.approx(image_size[0] / image_size[1], rel=0.02)
        assert min(slot.size) >= 120


def test_why_there_is_no_picture_stands_in_its_place():
    sheet = a_sheet(panel="not drawn")
    canvas = draw_sheet(sheet)
    for slots in places(sheet):
        for slot in slots:
            assert (canvas[slot.top, slot.left] == EMPTY).all()
            assert canvas[slot.pixels].min() < 150


def test_a_wrong_prediction_stands_out():
    sheet = a_sheet(2)
    canvas = draw_sheet(sheet)
    red = (canvas == WRONG).all(-1)
    wrong, right = (slots[0] for slots in places(sheet))
    assert red[wrong.top - 40 : wrong.top, wrong.left : wrong.left + 380].any()
    assert not red[right.top - 40 : right.top, right.left :].any()


@pytest.mark.parametrize("title", ["", "W" * 3000, "line\nbreak\0nul\udc80", "Ünïcödé 🫀" * 30])
@pytest.mark.parametrize("columns", [1, 4])
def test_no_text_is_clipped_or_runs_into_the_margin(title, columns):
    names = tuple(f"{title} {index}" for index in range(columns))
    sheet = a_sheet(7, names, title=title, panel=title)
    canvas = draw_sheet(sheet)
    edge = SIZES.margin // 2
    inside = np.zeros(canvas.shape[:2], bool)
    inside[edge:-edge, edge:-edge] = True
    assert (canvas[~inside] == PAPER).all()


def test_names_of_columns_are_not_shortened_where_a_smaller_font_fits():
    for image_size, columns in itertools.product([(64, 64), (128, 64)], (2, 3, 4)):
        sheet = a_sheet(3, COLUMNS[:columns], image_size)
        grid = sheets._arrange(sheet, SIZES)
        font = sheets.load_font(sheets._name_font(sheet.columns, grid))
        assert max(map(font.getlength, sheet.columns)) <= grid.slot


def test_a_split_without_records_has_a_sheet_that_says_so():
    canvas = draw_sheet(a_sheet(0))
    assert canvas.shape[0] < 400
    assert canvas.min() < 100


def test_equal_sheets_are_equal_bytes():
    assert draw_sheet(a_sheet()).tobytes() == draw_sheet(a_sheet()).tobytes()
