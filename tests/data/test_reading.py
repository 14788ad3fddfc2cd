"""Whatever a source does wrong is told as its own mistake, and is no record less without a word."""

from __future__ import annotations

import errno
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

import artifactgen.patience
from artifactgen.data.base import Catalog, SplitIndex
from artifactgen.data.reading import read_range, scan_source, stack
from artifactgen.errors import DataError, RecordError, RunError
from artifactgen.types import Failure, Sample

IDS = tuple(f"r{row}" for row in range(10))
IMAGE = np.zeros((3, 4, 5), np.uint8)


@dataclass(frozen=True)
class Ids:
    """A split of ten records."""

    ids: tuple[str, ...] = IDS

    def __len__(self) -> int:
        return len(self.ids)

    def record_ids(self, start: int, stop: int) -> tuple[str, ...]:
        return self.ids[start:stop]


def catalog(index: SplitIndex | None = None, **changes: Any) -> Catalog:
    splits = {"test": index or Ids()}
    return replace(Catalog(splits, ("a", "b"), channels=3, identity="x"), **changes)


Answer = Callable[[list[Any]], Any]


@dataclass(frozen=True)
class Theirs:
    """A source of somebody's: good samples, with which something is done."""

    change: Answer = iter
    image_size: tuple[int, int] | None = (4, 5)

    def scan(self) -> Catalog:
        found: Catalog = self.change([])
        return found

    def read(self, found: Catalog, split: str, start: int, stop: int) -> Iterator[Any]:
        answer: Iterator[Any] = self.change([sample(row) for row in range(start, stop)])
        return answer


def sample(row: int, **changes: Any) -> Sample:
    return replace(Sample(IDS[row], row, IMAGE, row % 2), **changes)


def read(change: Answer, start: int = 4, stop: int = 7) -> list[Sample | Failure]:
    return read_range(Theirs(change), catalog(), "test", start, stop)


def with_second(**changes: Any) -> Answer:
    return lambda items: [items[0], replace(items[1], **changes), *items[2:]]


def raising(error: BaseException) -> Answer:
    def answer(items: list[Any]) -> Iterator[Any]:
        yield items[0]
        raise error

    return answer


def test_good_answers_pass() -> None:
    failure = Failure("r5", "test", 5, "read", "cut short")
    found = read(lambda items: [items[0], failure, items[2]])
    assert [item.row for item in found] == [4, 5, 6]
    assert found[1] is failure
    numbers = read(with_second(row=np.int64(5), label=np.uint8(1)))[1]
    assert isinstance(numbers, Sample)
    assert [type(numbers.row), type(numbers.label)] == [int, int]
    assert read(with_second(label=-1))
    assert read_range(Theirs(iter), catalog(), "test", 4, 4) == []


def test_ids_of_three_hundred_bytes_are_kept() -> None:
    ids = ("é" * 150, "x" * 1024, *IDS[2:])
    found = Theirs(lambda items: [replace(item, record_id=ids[item.row]) for item in items])
    assert len(read_range(found, catalog(Ids(ids)), "test", 0, 3)) == 3


class OddError(Exception):
    """Cannot be pickled: it wants two arguments."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(first)


def endless(items: list[Any]) -> Iterator[Any]:
    yield from items
    while True:
        yield items[-1]


def leave(items: list[Any]) -> Iterator[Any]:
    yield items[0]
    sys.exit(0)


WRONG: dict[str, tuple[Answer, str]] = {
    "one less": (lambda items: items[:2], "it gave 2 of 3"),
    "one left out": (lambda items: [items[0], items[2]], "row 5: the Sample says that it is row 6"),
    "one more": (lambda items: [*items, items[0]], "it gave more than 3"),
    "without an end": (endless, "it gave more than 3"),
    "none": (lambda _: [], "it gave 0 of 3"),
    "no iterator": (lambda _: None, "raised TypeError while reading rows 4 to 6 of test"),
    "another order": (lambda items: items[::-1], "row 4: the Sample says that it is row 6"),
    "rows from 0": (
        lambda items: [replace(item, row=item.row - 4) for item in items],
        "row 4: the Sample says that it is row 0",
    ),
    "a row of text": (with_second(row="5"), "says that it is row '5'"),
    "another id": (with_second(record_id="x"), "row 5: its id is 'x', and 'r5' in the catalog"),
    "something else": (lambda items: [items[0], None, items[2]], "row 5: None is no Sample"),
    "a tuple": (lambda items: [("r4", IMAGE), *items[1:]], "row 4: of type tuple is no Sample"),
    "an id of bytes": (with_second(record_id=b"r5"), "its id b'r5' is no text"),
    "a long id": (
        with_second(record_id="r" * 10_000_000),
        "its id 'r{60}'… has 10,000,000 characters; at most 1,024 are kept",
    ),
    "a floating label": (with_second(label=1.0), r"its label 1\.0 is no whole number"),
    "a high label": (with_second(label=2), r"its label is 2, but there are 2 classes \(0 to 1"),
    "a low label": (with_second(label=-2), "its label is -2"),
    "no image": (with_second(image_CHW=None), "its image None is no NumPy array"),
    "a nested list": (with_second(image_CHW=[[0]]), "its image of type list is no NumPy array"),
    "float64": (with_second(image_CHW=IMAGE.astype(float)), "of float64; give uint8, uint16 or"),
    "bool": (with_second(image_CHW=IMAGE.astype(bool)), "of bool"),
    "channels last": (
        with_second(image_CHW=IMAGE.transpose(1, 2, 0)),
        r"the shape \(4, 5, 3\); \(C, H, W\) is \(3, 4, 5\)",
    ),
    "another size": (with_second(image_CHW=IMAGE[:, :3]), r"\(3, 3, 5\); \(C, H, W\) is"),
    "no channels": (with_second(image_CHW=IMAGE[0]), r"the shape \(4, 5\)"),
    "failure of another split": (
        lambda items: [Failure("r4", "val", 4, "read", "x"), *items[1:]],
        "the Failure says that it is of the split 'val'",
    ),
    "failure with an error": (
        lambda items: [Failure("r4", "test", 4, "read", ValueError("x")), *items[1:]],  # type: ignore[arg-type]
        "the reason of the Failure, of type ValueError, is no text",
    ),
    "an error": (raising(KeyError("x")), r"raised KeyError while .* \(test_reading\.py, line \d+"),
    "an odd error": (raising(OddError("a", "b")), "raised OddError while reading rows 4 to 6"),
    "an error without a number": (raising(OSError("no HDF5")), "raised OSError while.*no HDF5"),
    "a RecordError outside": (raising(RecordError("cut")), "reading rows 4 to 6 of test: cut"),
    "the end of an iterator": (raising(StopIteration()), "raised RuntimeError while"),
    "sys.exit": (leave, r"Theirs called sys\.exit\(0\) while reading rows 4 to 6 of test \(test_r"),
    "GeneratorExit": (raising(GeneratorExit()), "Theirs raised GeneratorExit while reading"),
}


@pytest.mark.parametrize(("change", "reason"), WRONG.values(), ids=WRONG)
def test_what_a_source_does_wrong_is_named(change: Answer, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        read(change)
    told = str(caught.value)
    assert "Theirs" in told
    assert "rows 4 to 6 of test" in told
    assert len(told) < 400
    assert str(pickle.loads(pickle.dumps(caught.value))) == told


def test_a_generator_that_ends_by_an_iterator_is_no_silence() -> None:
    def answer(items: list[Any]) -> Any:
        return next(iter([]))

    with pytest.raises(DataError, match="raised StopIteration while reading row 4 of test"):
        read(answer, 4, 5)


def test_labels_without_classes_are_told() -> None:
    with pytest.raises(DataError, match="its label is 0, but the catalog names no classes"):
        read_range(Theirs(), catalog(classes=()), "test", 0, 2)


def test_a_catalog_with_too_few_ids_is_told() -> None:
    with pytest.raises(DataError, match="the catalog has 1 ids for 3 rows"):
        read_range(Theirs(), catalog(Ids(IDS[:5])), "test", 4, 7)


@pytest.mark.parametrize(
    "number", [errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.EMFILE, errno.EHOSTDOWN]
)
def test_an_error_that_may_pass_keeps_its_number(number: int) -> None:
    with pytest.raises(OSError, match=r"Theirs, reading rows 4 to 6 of test") as caught:
        read(raising(OSError(number, "gone", "/data/x")))
    assert (caught.value.errno, caught.value.filename) == (number, "/data/x")


def test_memory_that_is_short_is_no_mistake_of_the_source() -> None:
    with pytest.raises(MemoryError):
        read(raising(MemoryError()))


@pytest.mark.parametrize(
    ("scan", "reason"),
    [
        (lambda _: None, "scan gave None, which is no Catalog"),
        (lambda _: 1 / 0, "raised ZeroDivisionError while scanning the data set"),
        (lambda _: sys.exit(), r"called sys\.exit\(\) while scanning the data set"),
        (lambda _: open("/nowhere"), "cannot scan the data set: .*No such file"),  # noqa: PTH123, SIM115
        (lambda _: catalog(classes=("x",) * 1_000_001), "1,000,001 classes; at most 1,000,000"),
    ],
)
def test_a_scan_that_fails_is_told(scan: Answer, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        scan_source(Theirs(scan))


def test_a_scan_that_a_server_does_not_answer_is_no_wrong_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def scan(_: list[Any]) -> Any:
        raise OSError(errno.ESTALE, "Stale file handle", "/data/x")

    monkeypatch.setattr(artifactgen.patience, "PAUSES_S", (0.01, 0.02))
    with pytest.raises(RunError, match=r"The data set: .*Stale .*\nIt was tried 3 times"):
        scan_source(Theirs(scan))


def test_an_image_of_another_type_than_the_first_is_told() -> None:
    wide = with_second(image_CHW=IMAGE.astype(np.uint16))
    told = "row 5: the image of 'r5' is uint16, and the first ones uint8"
    with pytest.raises(DataError, match=told):
        read_range(Theirs(wide), catalog(dtype="uint8"), "test", 4, 7)
    assert len(read_range(Theirs(wide), catalog(), "test", 4, 7)) == 3


def test_images_of_several_types_are_not_stacked() -> None:
    float_image = IMAGE.astype(np.float32)
    with pytest.raises(DataError, match="r0 is uint8 and r1 is float32"):
        stack([sample(0), sample(1, image_CHW=float_image)])
    assert stack([sample(0), sample(1)]).shape == (2, 3, 4, 5)
