from __future__ import annotations

import errno
import hashlib
from pathlib import Path

import pytest
from data.test_passing_errors import no_file_more

from artifactgen.data.content import content_digest, files_digest

BYTES = 1024 * 1024
BLOCK = 4096


def sparse_files(folder: Path, count: int) -> list[Path]:
    """Files of a MiB of zeros, which take no room."""
    paths = [folder / f"{number}.h5" for number in range(count)]
    for path in paths:
        with path.open("wb") as file:
            file.truncate(BYTES)
    return paths


def write_at(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def bytes_read() -> int:
    """By this process so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


@pytest.mark.parametrize(("count", "blocks"), [(1, 64), (100, 64), (200, 40), (3000, 3)])
def test_many_files_are_read_less_of_each(tmp_path: Path, count: int, blocks: int) -> None:
    paths = sparse_files(tmp_path, count)
    before = bytes_read()
    files_digest(paths)
    read = bytes_read() - before
    assert count * blocks * BLOCK <= read <= count * blocks * BLOCK + 100_000


def test_first_middle_and_last_are_always_among_them(tmp_path: Path) -> None:
    paths = sparse_files(tmp_path, 3000)
    expected = files_digest(paths)
    assert files_digest(paths) == expected
    for offset in (0, BYTES // 2, BYTES - 1):
        write_at(paths[1234], offset, b"x")
        assert files_digest(paths) != expected, offset
        write_at(paths[1234], offset, b"\0")
    assert files_digest(paths) == expected
    write_at(paths[1234], 3 * BLOCK, b"x")  # between the blocks
    assert files_digest(paths) == expected
    assert files_digest(paths[:1234] + paths[1235:]) != expected
    write_at(paths[1234], BYTES, b"x")  # another size
    assert files_digest(paths) != expected


def test_the_digest_is_of_the_files_in_their_order(tmp_path: Path) -> None:
    one, other = sparse_files(tmp_path, 2)
    write_at(other, 0, b"x")
    each = content_digest(one) + content_digest(other)
    assert files_digest([one, other]) == hashlib.sha256(each).hexdigest()
    assert files_digest([other, one]) != files_digest([one, other])
    assert files_digest([]) == hashlib.sha256(b"").hexdigest()


def test_what_may_pass_is_raised(tmp_path: Path) -> None:
    paths = sparse_files(tmp_path, 3)
    with no_file_more(), pytest.raises(OSError) as caught:
        files_digest(paths)
    assert caught.value.errno == errno.EMFILE
