from __future__ import annotations

from pathlib import Path

import pytest

from distributed.slurm.tail import Tail


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "job.log"


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def test_a_log_that_comes_later_and_grows(path: Path) -> None:
    tail = Tail(path)
    assert list(tail.lines()) == []
    append(path, b"one\ntw")
    assert list(tail.lines()) == ["one"]
    assert list(tail.lines()) == []
    append(path, "o\nthrée\n".encode())
    assert list(tail.lines()) == ["two", "thrée"]
    append(path, b"no end")
    assert list(tail.lines()) == []
    assert list(tail.rest()) == ["no end"]
    assert list(tail.rest()) == []


@pytest.mark.parametrize("again", [b"new\n", b"new and longer than what was there before\n", b""])
def test_a_log_that_is_written_anew(path: Path, again: bytes) -> None:
    tail = Tail(path)
    append(path, b"first run\nbegun")
    assert list(tail.lines()) == ["first run"]
    path.write_bytes(again)
    assert list(tail.lines()) == ["begun", *again.decode().splitlines()]
    append(path, b"more\n")
    assert list(tail.lines())[-1] == "more"


def test_a_log_that_is_replaced_by_another_file(path: Path) -> None:
    tail = Tail(path)
    append(path, b"a" * 1000 + b"\n")
    assert list(tail.lines()) == ["a" * 1000]
    other = path.with_name("other")
    other.write_bytes(b"b" * 2000 + b"\n")
    other.replace(path)
    assert list(tail.lines()) == ["b" * 2000]


def test_a_log_of_many_megabytes(path: Path) -> None:
    line = b"x" * 99 + b"\n"
    append(path, line * 100_000)
    tail = Tail(path)
    assert sum(1 for _ in tail.lines()) == 100_000
    append(path, b"end\n")
    assert list(tail.lines()) == ["end"]


def test_bytes_that_are_no_text(path: Path) -> None:
    append(path, b"\xff\xfe progress\r50 %\r100 %\n")
    assert list(Tail(path).lines()) == ["\ufffd\ufffd progress\r50 %\r100 %"]


def test_a_folder_in_place_of_a_log(tmp_path: Path) -> None:
    assert list(Tail(tmp_path).lines()) == []
