"""JPEG decoded without Pillow has Pillow's pixels, and what is damaged is left to it."""

from __future__ import annotations

import io
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image as Pillow

from artifactgen.data import decoding
from artifactgen.data.decoding import decode_picture
from artifactgen.data.jpeg import decode_jpeg
from artifactgen.errors import RecordError

Mode = Literal["RGB", "L"]
SIZES = [(1, 1), (1, 40), (40, 1), (7, 5), (8, 8), (17, 9), (16, 16), (33, 15), (131, 97)]


def a_photo(size: tuple[int, int]) -> Pillow.Image:
    """Colours that change smoothly, with noise."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    smooth = np.asarray(Pillow.fromarray(coarse).resize(size[::-1], Pillow.Resampling.BICUBIC))
    noisy = smooth + rng.normal(0, 12, smooth.shape)
    return Pillow.fromarray(noisy.clip(0, 255).astype(np.uint8))


def encoded(picture: Pillow.Image, **options: Any) -> bytes:
    content = io.BytesIO()
    picture.save(content, "JPEG", **options)
    return content.getvalue()


def by_pillow(data: bytes, mode: Mode) -> NDArray[Any]:
    with Pillow.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert(mode))


def ours(data: bytes, mode: Mode = "RGB") -> NDArray[np.uint8] | None:
    with Pillow.open(io.BytesIO(data)) as picture:
        return decode_jpeg(data, mode=mode, size=(picture.height, picture.width))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("quality", [20, 75, 95, 100])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_colours_are_those_of_pillow(
    size: tuple[int, int], quality: int, progressive: bool, subsampling: str
) -> None:
    picture, options = a_photo(size), {"quality": quality, "progressive": progressive}
    data = encoded(picture, subsampling=subsampling, **options)
    found = ours(data)
    assert found is not None
    assert np.array_equal(found, by_pillow(data, "RGB"))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_grey_is_that_of_pillow(size: tuple[int, int], mode: Mode) -> None:
    data = encoded(a_photo(size).convert("L"))
    found = ours(data, mode)
    assert found is not None
    assert np.array_equal(found, by_pillow(data, mode))


@pytest.mark.parametrize(
    "options",
    [{"restart_marker_blocks": 3}, {"optimize": True}, {"comment": b"x" * 999}, {"dpi": (1, 1)}],
    ids=str,
)
def test_markers_change_nothing(options: dict[str, Any]) -> None:
    data = encoded(a_photo((131, 97)), **options)
    found = ours(data)
    assert found is not None
    assert np.array_equal(found, by_pillow(data, "RGB"))


def test_an_orientation_is_left_to_who_asks_for_it() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    data = encoded(a_photo((40, 24)), exif=exif)
    assert decode_picture(data, mode="RGB", max_pixels=1000).shape == (40, 24, 3)
    assert decode_picture(data, mode="RGB", max_pixels=1000, exif_rotate=True).shape == (24, 40, 3)


WHOLE = encoded(a_photo((64, 48)), quality=90)
RARE: dict[str, tuple[bytes, Mode]] = {
    "CMYK": (encoded(a_photo((20, 30)).convert("CMYK")), "RGB"),
    "RGB, not YCbCr": (encoded(a_photo((20, 30)), keep_rgb=True), "RGB"),
    "colours as grey": (WHOLE, "L"),
    "no end": (WHOLE[:-2], "RGB"),
    "cut short": (WHOLE[: len(WHOLE) // 2], "RGB"),
}


@pytest.mark.parametrize(("data", "mode"), RARE.values(), ids=RARE)
def test_what_is_rare_or_damaged_is_left_to_pillow(data: bytes, mode: Mode) -> None:
    assert ours(data, mode) is None


def outcome(data: bytes) -> str | bytes:
    try:
        return decode_picture(data, mode="RGB", max_pixels=10_000).tobytes()
    except (OSError, SyntaxError, ValueError, RecordError) as error:
        return f"{type(error).__name__}: {error}"


CHANGES = st.tuples(st.integers(2, len(WHOLE) - 1), st.integers(0, 255))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(2, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4
    ),
    st.integers(0, 40),
)
def test_damaged_files_come_to_what_pillow_makes_of_them(
    changes: list[tuple[int, int]], cut: int
) -> None:
    damaged = bytearray(WHOLE)
    for position, value in changes:
        damaged[position] = value
    data = bytes(damaged[: len(damaged) - cut])
    found = outcome(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoding, "decode_jpeg", lambda *_, **__: None)
        assert found == outcome(data)
