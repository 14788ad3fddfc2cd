"""Headers of tar archives, against Python's `tarfile`."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifactgen.data.webdataset.tar import Archive, Member
from artifactgen.errors import DataError

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)
OTHERS = (tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE)

parts = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)
names = st.lists(parts, min_size=1, max_size=4).map("/".join)
long_names = st.tuples(names, st.integers(0, 40)).map(lambda of: "d123456/" * of[1] + of[0])
members = st.tuples(
    st.one_of(names, long_names), st.sampled_from(FILES + LINKS + OTHERS), st.binary(max_size=1500)
)


def listed(path: Path) -> list[Member]:
    with path.open("rb") as file:
        return list(Archive(str(path), file.fileno(), path.stat().st_size).members())


def expected(path: Path) -> list[Member]:
    with tarfile.open(path) as archive:
        return [
            Member(
                info.name,
                info.offset_data,
                0 if info.type in LINKS else info.size,
                not info.isreg(),
            )
            for info in archive
            if info.isreg() or info.type in LINKS
        ]


def write(path: Path, found: list[tuple[str, bytes, bytes]], **options: Any) -> list[bytes]:
    with tarfile.open(path, "w", **options) as archive:
        for name, kind, content in found:
            info = tarfile.TarInfo(name)
            if kind == tarfile.AREGTYPE and len(name.encode()) > 99:
                kind = tarfile.REGTYPE  # tarfile takes a name that is cut after a / for a folder's
            info.type, info.linkname = kind, "elsewhere" if kind in LINKS else ""
            info.size = len(content) if kind in FILES else 0
            archive.addfile(info, io.BytesIO(content))
    return [content for _, kind, content in found if kind in FILES]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(members, max_size=6), st.sampled_from(sorted(FORMATS)))
def test_members_are_those_that_tarfile_finds(
    tmp_path: Path, found: list[tuple[str, bytes, bytes]], name: str
) -> None:
    path = tmp_path / "a.tar"
    try:
        write(path, found, format=FORMATS[name], encoding="utf-8", errors="surrogateescape")
    except ValueError:  # a name that this format cannot have
        return
    there = expected(path)
    # tarfile takes slashes at the end of a name away; a file has none.
    assert listed(path) == [m for m in there if m.name or not m.is_link]
    content = path.read_bytes()
    assert [content[m.offset : m.offset + m.size] for m in listed(path) if not m.is_link] == [
        content[m.offset : m.offset + m.size] for m in there if not m.is_link
    ]


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_a_damaged_archive_is_refused_or_read_and_nothing_else(
    tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "b.tar"
    write(path, [("a/1.jpg", b"0", b"x" * 700), ("é" * 60, b"0", b"y")], format=tarfile.PAX_FORMAT)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with contextlib.suppress(DataError):
        found = listed(path)
        assert all(m.offset + m.size <= path.stat().st_size for m in found)


def test_large_sizes_are_numbers_in_bytes(tmp_path: Path) -> None:
    size, path = 9 << 30, tmp_path / "a.tar"
    info = tarfile.TarInfo("a.jpg")
    info.size = size
    with path.open("wb") as file:
        file.write(info.tobuf(tarfile.GNU_FORMAT))
        file.truncate(512 + size + 1024)  # a file with a hole, which takes no space
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        found = Archive(str(path), file.fileno(), 512 + size + 1024).members()
        assert next(found) == Member("a.jpg", 512, size)


@pytest.mark.parametrize("form", ["v7", "ustar", "gnu", "oldgnu", "pax"])
def test_what_gnu_tar_writes(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "files" / "d"
    folder.mkdir(parents=True)
    names = ["a.jpg", "b.cls", "n" * (60 if form in ("v7", "ustar") else 200)]
    for name in names:
        (folder / name).write_bytes(name.encode() * 300)
    if form != "v7":
        os.mkfifo(folder / "pipe")
    path = tmp_path / "a.tar"
    subprocess.run(
        ["tar", f"--format={form}", "-cf", path, "d"], cwd=tmp_path / "files", check=True
    )
    content = path.read_bytes()
    found = {m.name: content[m.offset : m.offset + m.size] for m in listed(path)}
    assert found == {f"d/{name}": name.encode() * 300 for name in names}


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_sparse_files_are_refused(tmp_path: Path, form: str) -> None:
    with (tmp_path / "a.jpg").open("wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 20)
        file.write(b"x")
    command = ["tar", "--sparse", f"--format={form}", "-cf", "a.tar", "a.jpg"]
    subprocess.run(command, cwd=tmp_path, check=True)
    with pytest.raises(DataError, match=r"a\.tar holds a sparse file"):
        listed(tmp_path / "a.tar")


@pytest.mark.parametrize("cut", [100, 512, 700, 1024, 1536])
def test_an_archive_that_is_cut_short_is_refused_wherever_that_is(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.tar"
    write(path, [("a.jpg", b"0", b"x" * 100), ("b.jpg", b"0", b"y" * 500)])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"a\.tar is cut short"):
        listed(path)


def test_what_follows_the_end_is_not_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write(path, [("a.jpg", b"0", b"x")])
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(DataError, match=r"a\.tar goes on after its end"):
        listed(path)


def test_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"\xff" * 2000)
    with pytest.raises(DataError, match=r"a\.tar is damaged, or no tar archive"):
        listed(tmp_path / "a.tar")
