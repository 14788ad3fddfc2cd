"""What a machine, a disk or a network refuses for a while is no record's fault."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from artifactgen.data.base import Catalog, decode_each, is_of_the_file
from artifactgen.data.cmr_acdc import CmrAcdc
from artifactgen.data.hdf5 import Hdf5
from artifactgen.data.reading import read_range
from artifactgen.types import Failure, Sample

PASSING = [
    *(errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE, errno.ENOMEM),
    *(errno.ECONNRESET, errno.EHOSTDOWN, errno.ENOTCONN, errno.EREMOTEIO, errno.EBUSY),
]
OF_A_FILE = [errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.ELOOP]


def decoded(error: BaseException, **options: Any) -> list[Sample | Failure]:
    def decode(row: int, record_id: str, ref: None) -> Sample:
        raise error

    return list(decode_each([("a", None)], decode, split="test", start=3, **options))


@pytest.mark.parametrize("number", PASSING)
def test_what_may_pass_is_raised(number: int) -> None:
    with pytest.raises(OSError) as caught:
        decoded(OSError(number, "x"))
    assert caught.value.errno == number


@pytest.mark.parametrize("number", OF_A_FILE)
def test_what_is_of_the_file_is_a_failure(number: int) -> None:
    error = OSError(number, os.strerror(number), "/data/a.png")
    assert decoded(error) == [
        Failure("a", "test", 3, "read", f"/data/a.png: {os.strerror(number)}")
    ]


def test_what_libraries_say_of_the_content_is_a_failure() -> None:
    assert decoded(OSError("bad chunk"))[0] == Failure("a", "test", 3, "read", "OSError: bad chunk")
    (failure,) = decoded(ValueError("x" * 10_000_000))
    assert isinstance(failure, Failure)
    assert len(failure.reason) == 1000


def test_memory_that_is_short_is_raised() -> None:
    with pytest.raises(MemoryError):
        decoded(MemoryError())


def test_a_file_is_missing_only_where_its_place_is_there(tmp_path: Path) -> None:
    missing = FileNotFoundError(errno.ENOENT, "No such file or directory", "a.png")
    place = tmp_path / "mounted"
    with pytest.raises(FileNotFoundError):
        decoded(missing, place=place)
    place.mkdir()
    with pytest.raises(FileNotFoundError):  # where nothing is mounted is an empty folder
        decoded(missing, place=place)
    (place / "b.png").touch()
    assert isinstance(decoded(missing, place=place)[0], Failure)
    assert is_of_the_file(missing)


@contextmanager
def no_file_more() -> Iterator[None]:
    """The process may open no further file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_acdc_out_of_file_handles(acdc_root: Path) -> None:
    source = CmrAcdc(root=str(acdc_root), image_size=(8, 8))
    catalog = source.scan()
    with no_file_more(), pytest.raises(OSError) as caught:
        read_range(source, catalog, "test", 0, 3)
    assert caught.value.errno == errno.EMFILE
    assert all(isinstance(item, Sample) for item in read_range(source, catalog, "test", 0, 3))


def test_acdc_that_is_not_mounted_any_more(acdc_root: Path) -> None:
    source = CmrAcdc(root=str(acdc_root), image_size=(8, 8))
    catalog = source.scan()
    shutil.rmtree(acdc_root / "testing" / "patient102")
    (_, failure, _) = read_range(source, catalog, "test", 0, 3)
    assert isinstance(failure, Failure)
    assert failure.reason.endswith("patient102_4d.nii.gz: No such file or directory")
    away = acdc_root.rename(acdc_root.with_name("away"))
    with pytest.raises(FileNotFoundError, match="reading rows 0 to 2 of test"):
        read_range(source, catalog, "test", 0, 3)
    acdc_root.mkdir()
    with pytest.raises(FileNotFoundError, match="reading rows 0 to 2 of test"):
        read_range(source, catalog, "test", 0, 3)
    acdc_root.rmdir()
    away.rename(acdc_root)
    assert isinstance(read_range(source, catalog, "test", 0, 3)[0], Sample)


def test_a_cine_that_nobody_may_read_is_a_failure_of_its_patient(acdc_root: Path) -> None:
    cine = acdc_root / "testing/patient102/patient102_4d.nii.gz"
    cine.chmod(0)
    if os.access(cine, os.R_OK):
        pytest.skip("root may read everything")
    source = CmrAcdc(root=str(acdc_root), image_size=(8, 8))
    (_, failure, _) = read_range(source, source.scan(), "test", 0, 3)
    assert isinstance(failure, Failure)
    assert "Permission denied" in failure.reason


@contextmanager
def failing_disk(path: Path) -> Iterator[None]:
    """Every read of a file that is open fails with EIO, as it does of memory that is not there."""
    opened = [
        int(link.name)
        for link in Path("/proc/self/fd").iterdir()
        if link.exists() and link.readlink() == path
    ]
    assert opened
    kept = [os.dup(number) for number in opened]
    unreadable = os.open("/proc/self/mem", os.O_RDONLY)
    for number in opened:
        os.dup2(unreadable, number)
    try:
        yield
    finally:
        for number, before in zip(opened, kept, strict=True):
            os.dup2(before, number)
        for number in (*kept, unreadable):
            os.close(number)


Scanned = tuple[Hdf5, Catalog, Path]


@pytest.fixture(params=[0, 1, 4], ids=["contiguous", "chunk=1", "chunk=4"])
def scanned(request: pytest.FixtureRequest, tmp_path: Path, write_hdf5: Callable[..., Path]) -> Any:
    images = np.random.default_rng(0).integers(0, 256, (40, 64, 64), dtype=np.uint8)
    path = write_hdf5(tmp_path / "a.h5", {"images": images}, chunk_rows=request.param)
    source = Hdf5(path=str(path), image_size=(64, 64))
    return source, source.scan(), path


def test_hdf5_on_a_disk_that_fails_for_a_while(scanned: Scanned) -> None:
    source, catalog, path = scanned
    read_range(source, catalog, "test", 0, 1)  # now it is open
    with failing_disk(path), pytest.raises(OSError) as caught:
        read_range(source, catalog, "test", 20, 25)
    assert (caught.value.errno, caught.value.filename) == (errno.EIO, str(path))
    assert "Hdf5, reading rows 20 to 24 of test" in str(caught.value)
    assert all(isinstance(item, Sample) for item in read_range(source, catalog, "test", 20, 25))


def test_hdf5_out_of_file_handles(scanned: Scanned) -> None:
    source, catalog, _ = scanned
    with no_file_more(), pytest.raises(OSError) as caught:
        read_range(source, catalog, "test", 0, 5)
    assert caught.value.errno == errno.EMFILE


def test_an_hdf5_file_that_is_gone_is_no_failure_of_its_records(scanned: Scanned) -> None:
    source, catalog, path = scanned
    path.unlink()
    with pytest.raises(FileNotFoundError):
        read_range(source, catalog, "test", 0, 5)


def test_a_broken_chunk_is_a_failure_at_once(tmp_path: Path, write_hdf5: Any) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16), dtype=np.uint8)
    path = write_hdf5(tmp_path / "a.h5", {"images": images}, chunk_rows=1)
    with h5py.File(path) as file:
        chunk = file["images"].id.get_chunk_info(2)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * chunk.size)
    source = Hdf5(path=str(path), image_size=(16, 16))
    found = read_range(source, source.scan(), "test", 0, 4)
    assert [isinstance(item, Failure) for item in found] == [False, False, True, False]
