from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from artifactgen.engine import Normalization
from artifactgen.pixels import PixelRange, contradictions, describe, doubts

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MODELS = Normalization(MEAN, STD)


def pixels(low: float, high: float, dtype: Any) -> PixelRange:
    return PixelRange.of([np.array([[[low, high]]], dtype)])


@pytest.mark.parametrize(
    ("found", "normalization"),
    [
        (pixels(0, 255, np.uint8), MODELS),
        (pixels(0, 60, np.uint8), MODELS),
        (pixels(0, 65_535, np.uint16), MODELS),
        (pixels(0, 33_000, np.uint16), MODELS),
        (pixels(0, 4095, np.uint16), Normalization(MEAN, STD, max_value=4095)),
        (pixels(0, 900, np.uint16), Normalization(MEAN, STD, max_value=4095)),
        (pixels(-2.1, 2.6, np.float32), MODELS),
        (pixels(-5, 14, np.float32), MODELS),
        (pixels(0, 1, np.float32), Normalization(MEAN, STD, of_floats=True)),
        (pixels(0, 1, np.float32), Normalization((0.0,), (1.0,), of_floats=True)),
        (pixels(0, 1, np.float32), Normalization((0.0,) * 3, (1.0,) * 3)),
        (pixels(0, 255, np.float32), Normalization((120.0,), (60.0,), of_floats=True)),
    ],
)
def test_what_is_usual_is_not_doubted(found: PixelRange, normalization: Normalization) -> None:
    assert doubts(found, normalization) == []


@pytest.mark.parametrize(
    ("found", "normalization", "said"),
    [
        (pixels(0, 4095, np.uint16), MODELS, "reach 4,095 of uint16, where white is 65,535"),
        (pixels(0, 4095, np.uint16), MODELS, "data.max_value=4095?"),
        (pixels(0, 3000, np.uint16), MODELS, "data.max_value=4095?"),
        (pixels(0, 1, np.uint8), MODELS, "data.max_value=1?"),
        (
            pixels(0, 5000, np.uint16),
            Normalization(MEAN, STD, max_value=4095),
            "reach 5,000 of uint16, more than data.max_value=4095",
        ),
        (
            pixels(0, 255, np.uint8),
            Normalization((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
            "data.mean=[0.485,0.456,0.406] data.std=[0.229,0.224,0.225]?",
        ),
        (
            pixels(0, 255, np.float32),
            MODELS,
            "data.mean=[123.7,116.3,103.5] data.std=[58.4,57.12,57.38]?",
        ),
        (
            pixels(-1024, 3071, np.float32),
            MODELS,
            "Floats from -1,024 to 3,071 are not normalised, and are taken as they are: data.mean "
            "and data.std of the training, for this range?",
        ),
        (pixels(0, 1, np.float32), MODELS, "data.mean=[0.485,0.456,0.406]"),
        (
            pixels(0, 255, np.float32),
            Normalization(MEAN, STD, of_floats=True),
            "reach 1136 standard deviations",
        ),
        (pixels(7, 7, np.uint8), MODELS, "Every pixel of the records looked at is 7."),
    ],
)
def test_what_is_not_is_said_with_the_option(
    found: PixelRange, normalization: Normalization, said: str
) -> None:
    assert said in " ".join(doubts(found, normalization))


def test_pixels_that_are_not_finite_are_left_out() -> None:
    images = [np.array([[[np.nan, 1.0, np.inf]]], np.float32), np.array([[[-3.0]]], np.float32)]
    assert str(PixelRange.of(images)) == "float32, -3 to 1"
    assert doubts(PixelRange.of([np.full((1, 2, 2), np.nan, np.float32)]), MODELS) == []


def test_a_record_without_a_finite_pixel_hides_no_other() -> None:
    images = [np.full((1, 1, 1), np.nan, np.float32), np.array([[[0.0, 2.0]]], np.float32)]
    assert str(PixelRange.of(images)) == "float32, 0 to 2"


def test_the_description_says_what_becomes_of_them() -> None:
    assert describe(pixels(0, 4095, np.uint16), Normalization((0.5,), (0.25,), max_value=4095)) == (
        "uint16, 0 to 4,095, white is 4,095; mean 0.5, std 0.25"
    )
    assert describe(pixels(0, 1, np.float32), MODELS) == "float32, 0 to 1; taken as they are"


def test_what_the_checkpoint_states_counts_only_where_it_is_used() -> None:
    stated = Normalization((0.5,), (0.25,), stated_in="hparams.mean", doubts=("another std",))
    of_bytes, of_floats = pixels(0, 255, np.uint8), pixels(-2, 2, np.float32)
    assert describe(of_bytes, stated).endswith("as the checkpoint states (hparams.mean)")
    assert contradictions(of_bytes, stated) == ["another std"]
    assert describe(of_floats, stated) == "float32, -2 to 2; taken as they are"
    assert contradictions(of_floats, stated) == []
