import numpy as np
import pytest

from artifactgen.rendering.figure.ticks import tick_labels, with_mark
from artifactgen.rendering.text import ELLIPSIS, fit_text, load_font, printable, write_text

FONT = load_font(24)


def test_a_short_text_is_kept():
    assert fit_text("patient_123", FONT, 1000) == "patient_123"


@pytest.mark.parametrize("width_px", [40, 123, 400, 1500])
def test_a_long_id_is_shortened_in_its_middle_to_the_most_that_fits(width_px):
    record_id = "".join(chr(ord("a") + i % 26) for i in range(200))
    short = fit_text(record_id, FONT, width_px)
    head, tail = short.split(ELLIPSIS)
    assert FONT.getlength(short) <= width_px
    assert record_id.startswith(head)
    assert record_id.endswith(tail)
    assert 0 <= len(head) - len(tail) <= 1
    assert FONT.getlength(short) > width_px - 2 * FONT.getlength("m")


def test_a_place_for_nothing_gets_an_ellipsis():
    assert fit_text("patient_123", FONT, 1) == ELLIPSIS


def test_what_has_no_glyph_gets_a_visible_mark():
    assert printable("a\nb\0c\ud800d🫀 é心") == "a�b�c�d� é�"


@pytest.mark.parametrize("text", ["", "é 心 🫀", "�", "(|)"])
def test_text_changes_only_what_it_covers(text):
    canvas = np.full((60, 300, 3), 255, np.uint8)
    write_text(canvas, text, (10, 40), font=FONT, color=(0, 0, 0))
    dark = np.argwhere((canvas < 255).any(-1))
    assert bool(len(dark)) == bool(text)
    assert not len(dark) or (dark.min(0) >= (10, 8)).all()


def test_text_that_does_not_fit_the_canvas_is_not_clipped_in_silence():
    canvas = np.full((60, 50, 3), 255, np.uint8)
    with pytest.raises(AssertionError, match="clipped"):
        write_text(canvas, "patient_123", (10, 40), font=FONT, color=(0, 0, 0))


@pytest.mark.parametrize("top", [1e-30, 3.1e-6, 9.99e-4, 0.0123, 0.05, 0.25, 1.0, 7.0, 1234.5])
@pytest.mark.parametrize("clipped", [False, True])
def test_ticks_stand_where_their_labels_say(top, clipped):
    ticks = tick_labels(top, spacing=0.1, clipped=clipped)
    assert 2 <= len(ticks) <= 6
    assert ticks[0] == (0.0, "0")
    for fraction, label in ticks:
        assert 0 <= fraction <= 1 + 1e-9
        assert float(label.lstrip("≥")) == pytest.approx(fraction * top, rel=0.05)
    assert [fraction for fraction, _ in ticks] == sorted(fraction for fraction, _ in ticks)
    assert (ticks[-1][1][0] == "≥") == clipped


@pytest.mark.parametrize("top", [0.0123, 0.0999, 0.25, 1.0])
@pytest.mark.parametrize("spacing", [0.05, 0.2, 0.4, 0.9])
@pytest.mark.parametrize("clipped", [False, True])
def test_labels_keep_their_distance(top, spacing, clipped):
    fractions = [fraction for fraction, _ in tick_labels(top, spacing=spacing, clipped=clipped)]
    assert (np.diff(fractions) >= spacing - 1e-9).all()


def test_an_all_zero_scale_has_one_tick():
    assert tick_labels(0.0, spacing=0.1, clipped=False) == [(0.0, "0")]


@pytest.mark.parametrize("fraction", np.linspace(0, 1, 21).tolist())
@pytest.mark.parametrize("clipped", [False, True])
def test_a_mark_takes_the_place_of_labels_too_near_to_it(fraction, clipped):
    ticks = tick_labels(0.05, spacing=0.1, clipped=clipped)
    marked = with_mark(ticks, (fraction, "1/65"), spacing=0.1)
    fractions = [place for place, _ in marked]
    assert fractions == sorted(fractions)
    assert (np.diff(fractions) >= 0.1 - 1e-9).all()
    assert marked[0] == (0.0, "0")
    assert ((fraction, "1/65") in marked) == (fraction >= 0.1)
