"""Tar shards with any members: refused in words, or a catalog whose records all read."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from helpers.broken import encoded, picture
from helpers.strategies import any_text, damaged, fuzzed, record_ids, refused_or_read, scratch
from hypothesis import given
from hypothesis import strategies as st

from artifactgen.data.webdataset import WebDataset
from artifactgen.types import Framing

GOOD = encoded(picture(0, (9, 11)))
Member = tuple[str, bytes, bytes]

names = st.builds(
    "{}.{}".format,
    st.one_of(st.sampled_from(["a", "b", "sub/a", "../x", "/etc/x", ".hidden"]), record_ids()),
    st.one_of(st.sampled_from(["png", "cls", "json", "PNG", "jpg", "seg.png"]), any_text(4)),
)
contents = st.one_of(
    st.just(GOOD), st.sampled_from([b"", b"0", b"1", b"-1", b"x", b"{}", b"9" * 40]), damaged(GOOD)
)
types = st.sampled_from([*[tarfile.REGTYPE] * 6, *[tarfile.SYMTYPE, tarfile.DIRTYPE]])
members = st.lists(st.tuples(names, contents, types), max_size=6)


def tar(found: list[Member]) -> bytes:
    """A tar file with these members; names that no tar holds are shortened."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", errors="surrogateescape") as archive:
        for name, data, kind in found:
            safe = name.replace("\0", "").encode("utf-8", "replace").decode() or "x"
            member = tarfile.TarInfo(safe)
            member.type, member.linkname = kind, "a.png"
            member.size = len(data) if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def read_all(path: Path) -> None:
    refused_or_read(WebDataset(path=str(path), image_size=(8, 8), framing=Framing()))


@given(members)
@fuzzed(100)
def test_any_members(found: list[Member]) -> None:
    with scratch() as folder:
        (folder / "0.tar").write_bytes(tar(found))
        read_all(folder / "0.tar")


WHOLE = tar(
    [
        (f"{n}.{kind}", data, tarfile.REGTYPE)
        for n in range(3)
        for kind, data in (("png", GOOD), ("cls", b"1"))
    ]
)


@given(damaged(WHOLE))
@fuzzed(100)
def test_a_damaged_tar(data: bytes) -> None:
    with scratch() as folder:
        (folder / "0.tar").write_bytes(data)
        read_all(folder / "0.tar")
