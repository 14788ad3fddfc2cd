"""Text in columns of Arrow: how it is coded there, and hashes of millions of names."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

TEXT = pa.binary()
"""Type of columns of text: names of files may hold bytes that are no UTF-8, which `os.fsdecode`
makes surrogates of, and Arrow's strings cannot hold those."""
_LAST_ASCII = 127
_PARTS, _PART_ROWS = 8, 1 << 20


def encoded(value: Any) -> Any:
    """Text as bytes that Arrow can hold; all else as it is."""
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


def decoded(value: Any) -> Any:
    """The text of what `encoded` gave."""
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value


def normal(name: str) -> str:
    """What is the same for names that look the same, whichever way their accents are coded."""
    return unicodedata.normalize("NFC", name)


def hashes_of(ids: Any) -> NDArray[np.int64]:
    """Eight bytes for each of many ids (`pyarrow.BinaryArray`); equal for ids that look the same.

    Each byte is multiplied by a fixed random number of its place, and the products are added:
    no two of ten million ids are likely to meet. https://arxiv.org/abs/1202.4961
    """
    if _bytes_of(ids)[0].max(initial=0) > _LAST_ASCII:
        ids = pa.array([encoded(normal(decoded(name))) for name in ids.to_pylist()], TEXT)
    content, offsets = _bytes_of(ids)
    places = np.arange(len(content)) - np.repeat(offsets[:-1], np.diff(offsets))
    products = np.take(_factors(), places, mode="wrap") * (content.astype(np.uint64) + 1)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(products)])
    hashes: NDArray[np.int64] = (sums[offsets[1:]] - sums[offsets[:-1]]).view(np.int64)
    return hashes


def equal_ones(hashes: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Hashes that occur more than once; they are sorted in parts, since a copy of all is large."""
    twice = []
    for part in range(_PARTS):
        blocks = (b for h in hashes for b in np.split(h, range(_PART_ROWS, len(h), _PART_ROWS)))
        every = np.concatenate([block[block % _PARTS == part] for block in blocks])
        every.sort()
        twice.append(np.unique(every[1:][every[1:] == every[:-1]]))
    return np.concatenate(twice)


def _bytes_of(ids: Any) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """The bytes of all ids, one after another, and where each begins, and the last ends."""
    _, offsets_buffer, content_buffer = ids.buffers()
    offsets = np.frombuffer(offsets_buffer, np.int32)[ids.offset : ids.offset + len(ids) + 1]
    if content_buffer is None:
        return np.empty(0, np.uint8), np.zeros_like(offsets)
    content = np.frombuffer(content_buffer, np.uint8)[offsets[0] : offsets[-1]]
    return content, offsets - offsets[0]


@lru_cache(1)
def _factors() -> NDArray[np.uint64]:
    return np.random.default_rng(0).integers(1 << 64, size=1 << 14, dtype=np.uint64)
