"""Chunks inflated here and by HDF5 give the same bytes."""

from __future__ import annotations

import multiprocessing
import os
import tracemalloc
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from artifactgen.data.hdf5 import Hdf5, chunks
from artifactgen.data.hdf5.chunks import ChunkCache, read_rows
from artifactgen.types import Failure, Sample

DTYPES = ["u1", "<u2", ">u2", "<f2", "<f4", ">f4", "<f8", "?", "<i4", "<u8"]


@pytest.fixture(autouse=True, scope="module")
def small_chunks_too() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "_MIN_CHUNK_BYTES", 1)
        yield


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    chunks.forget_chunks()
    yield
    chunks.forget_chunks()


def in_memory(name: str) -> h5py.File:
    return h5py.File(name, "w", driver="core", backing_store=False)


def some_values(shape: tuple[int, ...], dtype: str, seed: int) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 7, shape).astype(dtype)


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    shape = tuple(draw(st.lists(st.integers(1, 13), min_size=3, max_size=4)))
    return {
        "shape": shape,
        "maxshape": (None, *shape[1:]),
        "chunks": tuple(draw(st.integers(1, n + 3 * (axis == 0))) for axis, n in enumerate(shape)),
        "dtype": draw(st.sampled_from(DTYPES)),
        "compression": draw(st.sampled_from(["gzip", "gzip", "gzip", "lzf", None])),
        "shuffle": draw(st.booleans()),
        "fletcher32": draw(st.sampled_from([False, False, False, True])),
        "fillvalue": draw(st.sampled_from([0, 1])),
    }


@settings(max_examples=300, deadline=None)
@given(layouts(), st.integers(0, 9), st.data())
def test_any_layout_is_read_as_hdf5_reads_it(
    layout: dict[str, Any], level: int, data: st.DataObject
) -> None:
    if layout["compression"] == "gzip":
        layout["compression_opts"] = level
    with in_memory(f"{data.draw(st.integers(0, 1 << 60))}.h5") as file:
        images = file.create_dataset("images", **layout)
        written = data.draw(st.integers(0, len(images)))
        images[:written] = some_values((written, *images.shape[1:]), layout["dtype"], level)
        images.resize(data.draw(st.integers(1, 16)), axis=0)
        file.flush()
        for _ in range(4):
            start = data.draw(st.integers(0, len(images) - 1))
            stop = data.draw(st.integers(start + 1, len(images)))
            found, expected = np.asarray(read_rows(images, start, stop)), images[start:stop]
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
            assert found.tobytes() == expected.tobytes()


def write(path: Path, values: NDArray[Any], chunk: tuple[int, ...], **options: Any) -> h5py.Dataset:
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=values, chunks=chunk, compression="gzip", **options)
    return h5py.File(path)["images"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("chunk", [(1, 6, 5), (4, 6, 5), (3, 4, 2)])
def test_gzip_is_inflated_here(tmp_path: Path, dtype: str, shuffle: bool, chunk: Any) -> None:
    values = some_values((10, 6, 5), dtype, 0)
    packed = chunks._as_packed(write(tmp_path / "a.h5", values, chunk, shuffle=shuffle))
    assert packed is not None
    assert np.array_equal(chunks._assemble(packed, 2, 9), values[2:9])
    assert isinstance(read_rows(packed.dataset, 2, 9), list) == (chunk[0] == 1)
    assert np.array_equal(read_rows(packed.dataset, 2, 9), values[2:9])


def test_other_types_than_those_of_numpy_are_left_to_hdf5(tmp_path: Path) -> None:
    ten_bits = h5py.h5t.NATIVE_UINT16.copy()
    ten_bits.set_precision(10)
    ten_bits.set_offset(4)
    with in_memory("bits.h5") as file:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((2, 6, 5))
        plist.set_deflate(4)
        space = h5py.h5s.create_simple((4, 6, 5))
        images = h5py.Dataset(h5py.h5d.create(file.id, b"images", ten_bits, space, plist))
        images[:] = some_values((4, 6, 5), "u2", 0) * 100
        assert images[:].max() == 600
        assert np.array_equal(read_rows(images, 0, 4), images[:])


def replace_chunk(path: Path, origin: tuple[int, ...], content: bytes, mask: int = 0) -> None:
    with h5py.File(path, "a") as file:
        file["images"].id.write_direct_chunk(origin, content, filter_mask=mask)


def test_a_chunk_whose_filters_were_left_out_is_read(tmp_path: Path) -> None:
    values = some_values((4, 6, 5), "u2", 0)
    write(tmp_path / "a.h5", values, (2, 6, 5), shuffle=True).file.close()
    replace_chunk(tmp_path / "a.h5", (2, 0, 0), values[:2].tobytes(), mask=3)
    images = h5py.File(tmp_path / "a.h5")["images"]
    assert np.array_equal(read_rows(images, 0, 4), values[[0, 1, 0, 1]])


LENGTHS = {
    "shorter": (29, "29"),
    "longer": (31, "more than 30"),
    "bomb": (100 << 20, "more than 30"),
}


@pytest.mark.parametrize(("n_bytes", "found"), LENGTHS.values(), ids=LENGTHS)
def test_a_chunk_of_another_length_is_a_failure_of_its_record(
    tmp_path: Path, n_bytes: int, found: str
) -> None:
    path = tmp_path / "a.h5"
    values = some_values((4, 6, 5), "u1", 0)
    write(path, values, (1, 6, 5)).file.close()
    replace_chunk(path, (2, 0, 0), zlib.compress(bytes(n_bytes)))
    source = Hdf5(path=str(path), image_size=(6, 5))
    catalog = source.scan()
    tracemalloc.start()
    records = list(source.read(catalog, "test", 0, 4))
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    reason = f"OSError: the chunk at (2, 0, 0) has {found} bytes instead of 30"
    assert records[2] == Failure("a_2", "test", 2, "read", reason)
    good = [record for record in records if isinstance(record, Sample)]
    assert np.array_equal([s.image_CHW[0] for s in good], values[[0, 1, 3]])


@pytest.mark.parametrize("where", ["middle", "checksum"])
def test_one_wrong_byte_is_a_failure_of_its_record(tmp_path: Path, where: str) -> None:
    path = tmp_path / "a.h5"
    values = np.random.default_rng(0).integers(0, 99, (4, 60, 50), dtype=np.uint8)
    images = write(path, values, (1, 60, 50))
    packed = bytearray(images.id.read_direct_chunk((1, 0, 0))[1])
    images.file.close()
    packed[-1 if where == "checksum" else len(packed) // 2] ^= 1
    replace_chunk(path, (1, 0, 0), bytes(packed))
    source = Hdf5(path=str(path), image_size=(60, 50))
    records = list(source.read(source.scan(), "test", 0, 4))
    assert [isinstance(record, Failure) for record in records] == [False, True, False, False]


def test_a_chunk_is_inflated_once_for_all_threads() -> None:
    cache, barrier, inflated = ChunkCache(1000), Barrier(4), []

    def inflate() -> NDArray[Any]:
        inflated.append(1)
        return np.arange(5)

    def get(_: int) -> NDArray[Any]:
        barrier.wait()
        return cache.get("a", n_bytes=40, inflate=inflate)

    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(chunk, np.arange(5)) for chunk in pool.map(get, range(4)))
    assert len(inflated) == 1


def test_the_chunk_that_was_asked_for_longest_ago_is_dropped() -> None:
    cache = ChunkCache(100)
    inflated: list[str] = []

    def get(key: str, n_bytes: int = 40) -> None:
        cache.get(key, n_bytes=n_bytes, inflate=lambda: inflated.append(key) or np.zeros(1))

    for key in "abacab":
        get(key)
    assert "".join(inflated) == "abcb"
    get("large", 1000)
    get("large", 1000)
    assert inflated[4:] == ["large"]


def test_what_cannot_be_inflated_is_tried_again() -> None:
    cache = ChunkCache(100)

    def broken() -> NDArray[Any]:
        raise OSError("broken")

    for _ in range(2):
        with pytest.raises(OSError, match="broken"):
            cache.get("a", n_bytes=1, inflate=broken)
    assert cache.get("a", n_bytes=1, inflate=lambda: np.ones(1)) == [1]


def test_rows_of_one_chunk_inflate_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = some_values((64, 6, 5), "u1", 0)
    images = write(tmp_path / "a.h5", values, (32, 6, 5))
    inflated = []
    inflate = chunks._Packed.inflate
    monkeypatch.setattr(
        chunks._Packed, "inflate", lambda packed, at: inflated.append(at) or inflate(packed, at)
    )
    found = [read_rows(images, row, row + 8) for row in range(0, 64, 8)]
    assert np.array_equal(np.concatenate(found), values)
    assert inflated == [(0, 0, 0), (32, 0, 0)]
    images.file.close()
    again = write(tmp_path / "a.h5", values + 1, (32, 6, 5))
    assert np.array_equal(read_rows(again, 0, 8), values[:8] + 1)


def test_a_forked_child_waits_for_no_lock_of_its_parent(tmp_path: Path) -> None:
    images = write(tmp_path / "a.h5", some_values((4, 6, 5), "u1", 0), (4, 6, 5))
    cache = chunks._cache_of(os.getpid())
    context = multiprocessing.get_context("fork")
    with cache._lock:
        child = context.Process(target=read_rows, args=(images, 0, 2))
        child.start()
        child.join(20)
    assert child.exitcode == 0
