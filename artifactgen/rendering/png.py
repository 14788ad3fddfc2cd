"""PNG files, fast and always the same bytes: https://www.w3.org/TR/png-3/."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np
from isal import isal_zlib
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
FILTER_UP = 2
NO_TEXT: Mapping[str, str] = MappingProxyType({})


def encode_png(rgb_HW3: NDArray[np.uint8], text: Mapping[str, str] = NO_TEXT) -> bytes:
    """Encode an 8-bit RGB picture, row filter Up, deflate level 1 of ISA-L.

    Args:
        rgb_HW3: (H, W, 3) uint8.
        text: what readers show as the file's properties, in the order of the keys. A key has 1 to
            79 ASCII characters; a value may hold any character, NUL and lone surrogates escaped.
    """
    height, width, channels = rgb_HW3.shape
    assert channels == 3, rgb_HW3.shape
    assert rgb_HW3.dtype == np.uint8, rgb_HW3.dtype
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = isal_zlib.compress(_filter_up(rgb_HW3), 1)
    return b"".join(
        (
            SIGNATURE,
            *_chunk(b"IHDR", header),
            *(part for item in sorted(text.items()) for part in _text_chunk(*item)),
            *_chunk(b"IDAT", pixels),
            *_chunk(b"IEND", b""),
        )
    )


def _filter_up(rgb_HW3: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each row less the one above, after the byte that names the filter: (H, 1 + 3 W)."""
    rows = rgb_HW3.reshape(len(rgb_HW3), -1)
    filtered = np.empty((rows.shape[0], 1 + rows.shape[1]), np.uint8)
    filtered[:, 0] = FILTER_UP
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    return filtered


def _text_chunk(key: str, value: str) -> Iterator[bytes]:
    keyword = key.encode("ascii")
    assert 1 <= len(keyword) <= 79, key
    value = value.replace("\0", "\\0")
    if value.isascii():
        return _chunk(b"tEXt", keyword + b"\0" + value.encode("ascii"))
    uncompressed = b"\0\0\0" + b"\0" + b"\0"
    return _chunk(b"iTXt", keyword + uncompressed + value.encode("utf-8", "backslashreplace"))


def _chunk(kind: bytes, data: bytes) -> Iterator[bytes]:
    yield struct.pack(">I", len(data))
    yield kind
    yield data
    yield struct.pack(">I", isal_zlib.crc32(data, isal_zlib.crc32(kind)))
