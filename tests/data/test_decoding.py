"""What becomes of each kind of picture file, with its pixel values."""

from __future__ import annotations

import io
import re
import struct
import zlib
from functools import partial

import cv2
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from artifactgen.data import decoding
from artifactgen.data.base import decode_each
from artifactgen.data.decoding import decode_picture, dtype_of_picture
from artifactgen.errors import RecordError
from artifactgen.types import Failure

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = RGB[..., 0]
DEEP = GREY.astype(np.uint16) * 257


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def decode(data: bytes, **options):
    return decode_picture(data, **{"mode": "RGB", "max_pixels": 10**6, **options})


def palette() -> Image.Image:
    picture = Image.fromarray(GREY % 4).convert("P")
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    return picture


COLOURS = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]], np.uint8)
ALPHA = np.dstack([RGB, GREY])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(encoded(Image.fromarray(RGB)), RGB, id="rgb"),
        pytest.param(encoded(Image.fromarray(RGB), "TIFF"), RGB, id="tiff"),
        pytest.param(
            encoded(Image.fromarray(RGB), "TIFF", compression="tiff_lzw"), RGB, id="tiff, lzw"
        ),
        pytest.param(encoded(Image.fromarray(RGB), "WEBP", lossless=True), RGB, id="webp"),
        pytest.param(encoded(Image.fromarray(RGB), "BMP"), RGB, id="bmp"),
        pytest.param(encoded(Image.fromarray(RGB), "PPM"), RGB, id="ppm"),
        pytest.param(encoded(Image.fromarray(GREY)), np.dstack([GREY] * 3), id="grey"),
        pytest.param(encoded(Image.fromarray(ALPHA)), RGB, id="alpha is left out"),
        pytest.param(
            encoded(Image.fromarray(np.dstack([GREY, GREY]))),
            np.dstack([GREY] * 3),
            id="grey with alpha",
        ),
        pytest.param(encoded(palette()), COLOURS[GREY % 4], id="palette"),
        pytest.param(
            encoded(Image.fromarray(GREY > 99)), np.dstack([(GREY > 99) * 255] * 3), id="1 bit"
        ),
        pytest.param(
            cv2.imencode(".png", DEEP[..., None] * np.ones(3, np.uint16))[1].tobytes(),
            np.dstack([GREY] * 3),
            id="rgb of 16 bits: the upper 8",
        ),
    ],
)
def test_eight_bits_become_rgb(data, expected):
    found = decode(data)
    assert found.dtype == np.uint8
    assert (found == expected).all()
    assert dtype_of_picture(data) == "uint8"


def test_grey_is_the_luma_of_the_standard():
    found = decode(encoded(Image.fromarray(RGB)), mode="L")
    assert found.shape == RGB.shape[:2]
    expected = RGB @ np.array([0.299, 0.587, 0.114])
    assert np.abs(found - expected).max() <= 1


def test_cmyk_is_converted_without_a_profile():
    cmyk = np.dstack([RGB, np.zeros_like(GREY)])
    found = decode(encoded(Image.fromarray(cmyk, "CMYK"), "TIFF"))
    assert (found == 255 - RGB).all()


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_stay_what_they_are(kind, mode):
    data = encoded(Image.fromarray(DEEP), kind)
    found = decode(data, mode=mode)
    assert found.dtype == np.uint16
    assert (found == DEEP).all()
    assert dtype_of_picture(data) == "uint16"


def test_wide_integers_of_sixteen_bits_are_those():
    data = encoded(Image.fromarray(DEEP.astype(np.int32)), "TIFF")
    assert (decode(data) == DEEP).all()
    with pytest.raises(RecordError, match=r"values from 0 to 70,000: only those of 16 bits"):
        decode(encoded(Image.fromarray(np.array([[0, 70_000]], np.int32)), "TIFF"))
    with pytest.raises(RecordError, match="values from -1 to 5"):
        decode(encoded(Image.fromarray(np.array([[-1, 5]], np.int32)), "TIFF"))


def test_floats_stay_what_they_are():
    picture = GREY.astype(np.float32) / 7 - 3
    data = encoded(Image.fromarray(picture), "TIFF")
    assert (decode(data) == picture).all()
    assert dtype_of_picture(data) == "float32"
    picture[2, 2] = np.nan
    with pytest.raises(RecordError, match="NaN or Inf"):
        decode(encoded(Image.fromarray(picture), "TIFF"))


def test_of_several_pictures_the_first():
    frames = [Image.fromarray(RGB // n) for n in (1, 2, 3)]
    data = encoded(frames[0], "TIFF", save_all=True, append_images=frames[1:])
    assert (decode(data) == RGB).all()
    gif = encoded(palette(), "GIF", save_all=True, append_images=[palette().rotate(180)])
    assert (decode(gif) == COLOURS[GREY % 4]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_exif_orientation_is_applied_where_asked_for(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(RGB), exif=exif)
    assert (decode(data) == RGB).all()  # as timm and torchvision
    turned = {
        **{1: RGB, 2: RGB[:, ::-1], 3: RGB[::-1, ::-1], 4: RGB[::-1]},
        **{5: RGB.transpose(1, 0, 2), 6: np.rot90(RGB, -1)},
        **{7: RGB[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(RGB)},
    }
    assert (decode(data, exif_rotate=True) == turned[orientation]).all()


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size, with a stream of zeros behind it, some kilobytes in all."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(bytes(10_000_000), 9)
    chunks = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    packed = (
        struct.pack(">I", len(c)) + kind + c + struct.pack(">I", zlib.crc32(kind + c))
        for kind, c in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def test_a_bomb_is_refused_before_memory_is_taken():
    bomb = png_header(14_000, 14_000)
    assert len(bomb) < 20_000
    before = psutil.Process().memory_info().rss
    for _ in range(20):
        with pytest.raises(
            RecordError, match=r"14,000 × 14,000 = 196,000,000 pixels are more than"
        ):
            decode(bomb, max_pixels=10**8)
    assert psutil.Process().memory_info().rss - before < 20e6
    with pytest.raises(RecordError, match=r"more than data.max_pixels=100000000"):
        decode(png_header(2**31 - 1, 2**31 - 1), max_pixels=10**8)


JPEG = encoded(Image.fromarray(np.tile(RGB, (20, 20, 1))), "JPEG")
PNG = encoded(Image.fromarray(np.tile(RGB, (20, 20, 1))))


TIFF = encoded(Image.fromarray(RGB), "TIFF")
WEBP = encoded(Image.fromarray(RGB), "WEBP")
NO_PICTURE, CUT = "no picture that could be read, by its first bytes", "truncated"


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", r"empty \(0 bytes\)", id="empty"),
        pytest.param(b"not a picture at all\n", NO_PICTURE, id="text"),
        pytest.param(JPEG[: len(JPEG) // 2], CUT, id="JPEG, cut"),
        pytest.param(JPEG[:-3], CUT, id="JPEG, its last bytes cut"),
        pytest.param(JPEG[:10], "Truncated", id="JPEG, nothing but its head"),
        pytest.param(PNG[: len(PNG) // 2], CUT, id="PNG, cut"),
        pytest.param(PNG[:60] + b"\xff" * 40 + PNG[100:], "broken", id="PNG, stream broken"),
        pytest.param(TIFF[:60], NO_PICTURE, id="TIFF, cut"),
        pytest.param(TIFF[:-3], CUT, id="TIFF, its last bytes cut"),
        pytest.param(WEBP[:40], "could not create decoder", id="WebP, cut"),
    ],
)
def test_what_is_broken_is_no_picture(data, reason):
    with pytest.raises((RecordError, OSError, SyntaxError), match=reason) as raised:
        decode(data)
    assert getattr(raised.value, "errno", None) is None  # of the content, and not of the system


WHOLE = [
    JPEG,
    PNG,
    encoded(Image.fromarray(RGB), "TIFF"),
    encoded(palette(), "GIF"),
    encoded(Image.fromarray(RGB), "WEBP"),
    encoded(Image.fromarray(DEEP)),
]


@given(st.sampled_from(WHOLE), st.data())
@settings(max_examples=400, deadline=None, derandomize=True)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damage_of_any_kind_is_an_error_of_the_record_or_a_picture(whole, data):
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    stop = data.draw(st.integers(0, len(broken)))
    sample = partial(decode, bytes(broken[:stop]))
    (found,) = decode_each([("id", None)], lambda *_: sample(), split="test", start=0)
    if isinstance(found, Failure):
        assert found.reason
    else:
        assert found.dtype in (np.uint8, np.uint16, np.float32)
        assert found.ndim in (2, 3)


def test_the_table_of_conversions_names_every_mode_that_is_not_eight_bits():
    assert set(decoding._DEEP.values()) == {"uint16", "float32"}
    assert re.search(r"grey of 16 bits +uint16", decoding.__doc__ or "")
