"""Chunks packed by gzip, inflated by ISA-L outside of HDF5's lock: faster, and in several threads.

Whatever is packed, damaged or laid out in another way is left to the plain library.
"""

from __future__ import annotations

import functools
import itertools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import cv2
import h5py
import numpy as np
from isal.igzip_lib import DECOMP_ZLIB, IgzipDecompressor, IsalError
from numpy.typing import NDArray

Box = tuple[int, ...]
_KEPT_BYTES = 128 << 20
_MIN_CHUNK_BYTES = 4 << 10
"""Of smaller ones HDF5's own loop takes less time than one in Python."""
_MAX_CHUNK_BYTES = 64 << 20
"""Of a chunk that is inflated here: several threads may do so at once."""
_DEFLATE, _SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE


class _OtherwiseError(Exception):
    """A chunk is not what the data set's filters make of one."""


@dataclass(slots=True)
class _Slot:
    n_bytes: int
    lock: Lock = field(default_factory=Lock)
    chunk: NDArray[Any] | None = None


class ChunkCache:
    """Chunks that more than one read needs; each is inflated by the first that asks for it."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._lock = Lock()
        self._slots: dict[object, _Slot] = {}  # the one asked for last stands last

    def get(
        self, key: object, *, n_bytes: int, inflate: Callable[[], NDArray[Any]]
    ) -> NDArray[Any]:
        """The chunk of a key. Where `inflate` fails, the next who asks tries again."""
        with self._lock:
            slot = self._slots.pop(key, None) or _Slot(n_bytes)
            self._slots[key] = slot
            self._drop_oldest()
        with slot.lock:
            if slot.chunk is None:
                slot.chunk = inflate()
            return slot.chunk

    def _drop_oldest(self) -> None:
        excess = sum(slot.n_bytes for slot in self._slots.values()) - self._limit_bytes
        while excess > 0 and len(self._slots) > 1:
            excess -= self._slots.pop(next(iter(self._slots))).n_bytes


@functools.lru_cache(maxsize=1)
def _cache_of(pid: int) -> ChunkCache:
    del pid  # a forked child must not wait for a lock that its parent held
    return ChunkCache(_KEPT_BYTES)


def forget_chunks() -> None:
    """Keep nothing of what was read before."""
    _cache_of.cache_clear()


@dataclass(frozen=True, slots=True)
class _Packed:
    """A data set all of whose chunks are packed by gzip, after a shuffle of bytes or without."""

    dataset: h5py.Dataset
    chunk: Box
    """Shape of a chunk."""
    dtype: np.dtype[Any]
    shuffled: bool

    @property
    def n_bytes(self) -> int:
        """Of a chunk."""
        return math.prod(self.chunk) * self.dtype.itemsize

    @property
    def first(self) -> Box:
        """Where the first chunk begins."""
        return (0,) * len(self.chunk)

    def inflate(self, origin: Box) -> NDArray[Any]:
        """The chunk that begins at `origin`; at the edges of the data set it reaches beyond."""
        stream = IgzipDecompressor(flag=DECOMP_ZLIB)
        content = stream.decompress(self._packed_bytes(origin), self.n_bytes + 1)
        if not stream.eof and len(content) <= self.n_bytes:
            raise _OtherwiseError("cut short")
        if len(content) != self.n_bytes:  # HDF5 would fill up with what its memory held before
            found = f"more than {self.n_bytes}" if len(content) > self.n_bytes else len(content)
            raise OSError(f"the chunk at {origin} has {found} bytes instead of {self.n_bytes}")
        flat = np.frombuffer(content, np.uint8)
        if self.shuffled:
            flat = _unshuffle(flat, self.dtype.itemsize)
        return flat.view(self.dtype).reshape(self.chunk)

    def _packed_bytes(self, origin: Box) -> bytes:
        try:
            # Asked for a chunk that was never written, HDF5 2.0 takes memory of a random size.
            if self.dataset.id.get_chunk_info_by_coord(origin).byte_offset is None:
                raise _OtherwiseError("never written")
            filter_mask, content = self.dataset.id.read_direct_chunk(origin)
        except (OSError, KeyError, RuntimeError) as error:
            raise _OtherwiseError("not to be read") from error
        if filter_mask:
            raise _OtherwiseError("a filter was left out")
        packed: bytes = content
        return packed


def read_rows(images: h5py.Dataset, start: int, stop: int) -> NDArray[Any] | Sequence[NDArray[Any]]:
    """The images of `images[start:stop]`, faster where the chunks are packed by gzip.

    Those that are a chunk each are not copied, and cannot be written to.

    Raises:
        OSError: a chunk holds more or less than it should; and what else the plain library raises.
    """
    packed = _as_packed(images)
    if packed is not None:
        # Of what cannot be read here the plain library makes what it can, or says why not.
        with suppress(_OtherwiseError, IsalError):  # type: ignore[arg-type]  # isal's stub
            if packed.chunk == (1, *images.shape[1:]):
                return [packed.inflate((row, *packed.first[1:]))[0] for row in range(start, stop)]
            return _assemble(packed, start, stop)
    rows: NDArray[Any] = images[start:stop]
    return rows


def _as_packed(dataset: h5py.Dataset) -> _Packed | None:
    """What is needed to inflate the chunks; None where they are packed in another way."""
    dtype = dataset.dtype
    if dataset.chunks is None or not len(dataset):
        return None
    plist = dataset.id.get_create_plist()
    filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    if filters not in ([_DEFLATE], [_SHUFFLE, _DEFLATE]):
        return None
    # A type may have unusual bits that NumPy's does not: HDF5 converts those.
    if dataset.id.get_type() != h5py.h5t.py_create(dtype, logical=True):
        return None
    packed = _Packed(dataset, dataset.chunks, dtype, shuffled=_SHUFFLE in filters)
    return packed if _MIN_CHUNK_BYTES <= packed.n_bytes <= _MAX_CHUNK_BYTES else None


def _assemble(packed: _Packed, start: int, stop: int) -> NDArray[Any]:
    shape = packed.dataset.shape
    rows = np.empty((stop - start, *shape[1:]), packed.dtype)
    lows, highs = (start, *(0 for _ in shape[1:])), (stop, *shape[1:])
    info = h5py.h5o.get_info(packed.dataset.id)
    for origin in _origins(packed.chunk, lows, highs):
        inflate = functools.partial(packed.inflate, origin)
        if start <= origin[0] and origin[0] + packed.chunk[0] <= stop:
            chunk = inflate()  # no other read needs it
        else:
            key = (info.fileno, info.addr, origin)
            chunk = _cache_of(os.getpid()).get(key, n_bytes=packed.n_bytes, inflate=inflate)
        _place(chunk, origin, rows, lows=lows, highs=highs)
    return rows


def _origins(chunk: Box, lows: Box, highs: Box) -> Iterator[Box]:
    """Where the chunks begin that a box has a part of."""
    axes = zip(chunk, lows, highs, strict=True)
    return itertools.product(*(range(low - low % size, high, size) for size, low, high in axes))


def _place(chunk: NDArray[Any], origin: Box, rows: NDArray[Any], *, lows: Box, highs: Box) -> None:
    """Copy what a chunk has of the box from `lows` to `highs`."""
    sources, targets = [], []
    for begin, size, low, high in zip(origin, chunk.shape, lows, highs, strict=True):
        first, last = max(begin, low), min(begin + size, high)
        sources.append(slice(first - begin, last - begin))
        targets.append(slice(first - low, last - low))
    rows[tuple(targets)] = chunk[tuple(sources)]


def _unshuffle(flat: NDArray[np.uint8], itemsize: int) -> NDArray[np.uint8]:
    """All first bytes, then all second bytes, …, as values again."""
    if itemsize == 1:
        return flat
    planes = flat.reshape(itemsize, 1, -1)
    values = np.empty((1, planes.shape[-1], itemsize), np.uint8)
    cv2.merge(list(planes), values)
    return values.reshape(-1)
