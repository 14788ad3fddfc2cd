import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from artifactgen.rendering.colormaps import lookup_table
from artifactgen.rendering.png import encode_animation, encode_indexed_png, encode_png


def random_picture(height, width):
    return np.random.default_rng(height + width).integers(0, 256, (height, width, 3), np.uint8)


def chunks(png):
    position = 8
    while position < len(png):
        (length,) = struct.unpack(">I", png[position : position + 4])
        kind = png[position + 4 : position + 8]
        data = png[position + 8 : position + 8 + length]
        (crc,) = struct.unpack(">I", png[position + 8 + length : position + 12 + length])
        assert crc == zlib.crc32(kind + data)
        yield kind, data
        position += 12 + length


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (224, 224), (301, 517)])
def test_other_readers_see_the_same_pixels(size):
    picture = random_picture(*size)
    png = encode_png(picture)
    with Image.open(io.BytesIO(png)) as opened:
        assert opened.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(opened), picture)
    bgr = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(bgr[..., ::-1], picture)


def test_views_are_encoded_like_their_copies():
    picture = random_picture(40, 60)[::2, 5:31, ::-1]
    assert encode_png(picture) == encode_png(picture.copy())


def test_smooth_pictures_become_small():
    ramp = np.broadcast_to(np.arange(256, dtype=np.uint8)[:, None, None], (256, 256, 3))
    assert len(encode_png(ramp)) < ramp.size / 50


def test_text_can_be_read_back():
    text = {
        "Title": "patient_123",
        "Class": "Größe 心臓 🫀",
        "Empty": "",
        "Lines": "one\ntwo",
    }
    with Image.open(io.BytesIO(encode_png(random_picture(3, 3), text))) as opened:
        opened.load()
        assert opened.text == text


def test_what_a_text_chunk_cannot_hold_is_escaped():
    text = {"Surrogate": "a\udc80b", "NUL": "a\0b"}
    with Image.open(io.BytesIO(encode_png(random_picture(3, 3), text))) as opened:
        opened.load()
        assert opened.text == {"Surrogate": "a\\udc80b", "NUL": "a\\0b"}


def test_the_file_is_a_well_formed_png():
    png = encode_png(random_picture(5, 7), {"Title": "é"})
    assert [kind for kind, _ in chunks(png)] == [b"IHDR", b"iTXt", b"IDAT", b"IEND"]
    assert zlib.decompress(dict(chunks(png))[b"IDAT"])[:: 1 + 7 * 3] == bytes([2] * 5)


def test_equal_pictures_and_texts_are_equal_bytes():
    picture = random_picture(50, 50)
    text = {"b": "2", "a": "1"}
    assert encode_png(picture, text) == encode_png(picture.copy(), dict(sorted(text.items())))
    assert encode_png(picture, text) != encode_png(picture, {"a": "1", "b": "3"})


@pytest.mark.parametrize("key", ["", "x" * 80, "ключ"])
def test_a_key_that_png_does_not_allow_is_refused(key):
    with pytest.raises((AssertionError, UnicodeEncodeError)):
        encode_png(random_picture(2, 2), {key: "value"})


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (224, 224), (301, 517)])
def test_other_readers_see_the_colors_of_an_indexed_picture(size):
    levels = random_picture(*size)[..., 0]
    palette = lookup_table("inferno")
    png = encode_indexed_png(levels, palette, {"Title": "é"})
    with Image.open(io.BytesIO(png)) as opened:
        opened.load()
        assert opened.mode == "P"
        assert opened.text == {"Title": "é"}
        np.testing.assert_array_equal(np.asarray(opened.convert("RGB")), palette[levels])
    bgr = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(bgr[..., ::-1], palette[levels])
    assert [kind for kind, _ in chunks(png)] == [b"IHDR", b"PLTE", b"iTXt", b"IDAT", b"IEND"]


def test_indexed_pictures_are_smaller():
    levels = random_picture(200, 200)[..., 0]
    palette = lookup_table("viridis")
    assert len(encode_indexed_png(levels, palette)) < 0.6 * len(encode_png(palette[levels]))


def test_an_animation_shows_its_frames_in_order():
    frames = [random_picture(40, 60) // (index + 1) for index in range(3)]
    png = encode_animation(frames, {"Title": "cine"}, frame_ms=250)
    with Image.open(io.BytesIO(png)) as opened:
        assert (opened.mode, opened.size, opened.n_frames) == ("RGB", (60, 40), 3)
        assert opened.info["loop"] == 0
        for index, frame in enumerate(frames):
            opened.seek(index)
            assert opened.info["duration"] == 250
            np.testing.assert_array_equal(np.asarray(opened), frame)
        assert opened.text == {"Title": "cine"}
    assert [kind for kind, _ in chunks(png)] == [
        *(b"IHDR", b"tEXt", b"acTL"),
        *(b"fcTL", b"IDAT", b"fcTL", b"fdAT", b"fcTL", b"fdAT"),
        b"IEND",
    ]


def test_readers_of_stills_see_the_first_frame_of_an_animation():
    frames = [random_picture(40, 60), random_picture(40, 60) // 2]
    png = encode_animation(frames)
    bgr = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(bgr[..., ::-1], frames[0])
    with Image.open(io.BytesIO(png)) as opened:
        np.testing.assert_array_equal(np.asarray(opened), frames[0])


def test_a_single_frame_is_a_still():
    picture = random_picture(9, 9)
    assert encode_animation([picture], {"a": "b"}) == encode_png(picture, {"a": "b"})


def test_frames_of_different_sizes_are_refused():
    with pytest.raises(AssertionError, match="size"):
        encode_animation([random_picture(9, 9), random_picture(9, 8)])


@pytest.mark.parametrize("wrong", [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.uint16)])
def test_only_8_bit_rgb_is_encoded(wrong):
    with pytest.raises(AssertionError):
        encode_png(wrong)
    with pytest.raises(AssertionError):
        encode_indexed_png(wrong, lookup_table("inferno"))
