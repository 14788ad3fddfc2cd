"""PNG files, fast and always the same bytes: https://www.w3.org/TR/png-3/."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray
from zlib_ng import zlib_ng

SIGNATURE = b"\x89PNG\r\n\x1a\n"
FILTER_UP = 2
NO_TEXT: Mapping[str, str] = MappingProxyType({})

_RGB, _INDEXED = 2, 3
_LEVEL = 2
"""Of deflate: less than 1 in bytes, and hardly slower."""


def encode_png(rgb_HW3: NDArray[np.uint8], text: Mapping[str, str] = NO_TEXT) -> bytes:
    """Encode an 8-bit RGB picture, row filter Up, deflate level 2 of zlib-ng.

    Args:
        rgb_HW3: (H, W, 3) uint8.
        text: what readers show as the file's properties, in the order of the keys. A key has 1 to
            79 ASCII characters; a value may hold any character, NUL and lone surrogates escaped.
    """
    assert rgb_HW3.shape[2:] == (3,), rgb_HW3.shape
    return _file(_header(rgb_HW3, _RGB), _text_chunks(text), _chunk(b"IDAT", _compress(rgb_HW3)))


def encode_indexed_png(
    levels_HW: NDArray[np.uint8],
    palette_256x3: NDArray[np.uint8],
    text: Mapping[str, str] = NO_TEXT,
) -> bytes:
    """Encode a picture of at most 256 colours in a third of the bytes: (H, W) uint8 indices.

    Args:
        levels_HW: an index into the palette for each pixel.
        palette_256x3: RGB of each index.
        text: as in `encode_png`.
    """
    assert levels_HW.ndim == 2, levels_HW.shape
    assert palette_256x3.shape == (256, 3), palette_256x3.shape
    return _file(
        _header(levels_HW, _INDEXED),
        _chunk(b"PLTE", palette_256x3.tobytes()),
        _text_chunks(text),
        _chunk(b"IDAT", _compress(levels_HW)),
    )


def encode_animation(
    frames_HW3: Sequence[NDArray[np.uint8]],
    text: Mapping[str, str] = NO_TEXT,
    *,
    frame_ms: int = 500,
) -> bytes:
    """Encode frames that are shown one after the other, over and over; a single one is a still.

    Browsers and Pillow play it. A reader that knows stills only, such as OpenCV, shows the first
    frame, which is an ordinary PNG's only picture: https://www.w3.org/TR/png-3/#apng-frame-based-animation.

    Args:
        frames_HW3: RGB pictures of one size.
        text: as in `encode_png`.
        frame_ms: how long each is shown.
    """
    first, *others = frames_HW3
    if not others:
        return encode_png(first, text)
    assert len({frame.shape for frame in frames_HW3}) == 1, "frames of one size"
    control = _frame_control(first, frame_ms)
    shown: list[bytes] = []
    for number, frame in enumerate(others):
        # Controls and data of the frames are numbered together; the first control has number 0.
        shown += _chunk(b"fcTL", struct.pack(">I", 2 * number + 1) + control)
        shown += _chunk(b"fdAT", struct.pack(">I", 2 * number + 2) + _compress(frame))
    return _file(
        _header(first, _RGB),
        _text_chunks(text),
        _chunk(b"acTL", struct.pack(">II", len(frames_HW3), 0)),
        _chunk(b"fcTL", struct.pack(">I", 0) + control),
        _chunk(b"IDAT", _compress(first)),
        shown,
    )


def _frame_control(frame: NDArray[np.uint8], frame_ms: int) -> bytes:
    """A frame that covers and replaces the whole picture."""
    height, width = frame.shape[:2]
    return struct.pack(">IIIIHHBB", width, height, 0, 0, frame_ms, 1000, 0, 0)


def _file(*chunks: Sequence[bytes]) -> bytes:
    return b"".join((SIGNATURE, *(part for chunk in chunks for part in chunk), *_chunk(b"IEND")))


def _header(pixels: NDArray[np.uint8], color_type: int) -> Sequence[bytes]:
    assert pixels.dtype == np.uint8, pixels.dtype
    height, width = pixels.shape[:2]
    return _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color_type, 0, 0, 0))


def _compress(pixels: NDArray[np.uint8]) -> bytes:
    """The rows, filtered and deflated.

    ISA-L is faster, and once in some thousand pictures, on busy machines, chooses another distance
    for a match: the same pixels, and other bytes.
    """
    deflated: bytes = zlib_ng.compress(_filter_up(pixels.reshape(len(pixels), -1)), _LEVEL)
    return deflated


def _filter_up(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each row less the one above, after the byte that names the filter: (rows, 1 + bytes)."""
    filtered = np.empty((rows.shape[0], 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = FILTER_UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    return filtered


def _text_chunks(text: Mapping[str, str]) -> Sequence[bytes]:
    return [part for item in sorted(text.items()) for part in _text_chunk(*item)]


def _text_chunk(key: str, value: str) -> Sequence[bytes]:
    keyword = key.encode("ascii")
    assert 1 <= len(keyword) <= 79, key
    value = value.replace("\0", "\\0")
    if value.isascii():
        return _chunk(b"tEXt", keyword + b"\0" + value.encode("ascii"))
    uncompressed = b"\0\0\0" + b"\0" + b"\0"
    return _chunk(b"iTXt", keyword + uncompressed + value.encode("utf-8", "backslashreplace"))


def _chunk(kind: bytes, data: bytes = b"") -> Sequence[bytes]:
    crc = isal_zlib.crc32(data, isal_zlib.crc32(kind))
    return struct.pack(">I", len(data)), kind, data, struct.pack(">I", crc)
