import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from artifactgen.rendering.png import encode_png


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


@pytest.mark.parametrize("wrong", [np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.uint16)])
def test_only_8_bit_rgb_is_encoded(wrong):
    with pytest.raises(AssertionError):
        encode_png(wrong)
