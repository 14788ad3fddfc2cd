"""Data sets of the user's own: those of torch and torchvision, and what else gives items."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import IterableDataset, Subset, TensorDataset
from torchvision.datasets import FakeData

from artifactgen.data.base import Catalog
from artifactgen.data.custom import Custom
from artifactgen.data.framing import frame
from artifactgen.data.reading import read_range, scan_source
from artifactgen.errors import ConfigError, DataError
from artifactgen.types import Failure, Framing, Sample

FRAMING = Framing(crop_pct=0.5)
HERE = __name__


def source(target: str, **options: Any) -> Custom:
    target = target if "." in target else f"{HERE}.{target}"
    return Custom(target=target, image_size=(12, 10), framing=FRAMING, **options)


def read_all(made: Custom) -> tuple[Catalog, dict[str, list[Sample | Failure]]]:
    catalog = scan_source(made)
    found = {
        split: read_range(made, catalog, split, 0, len(index))
        for split, index in catalog.splits.items()
    }
    return catalog, found


def good(items: list[Sample | Failure]) -> list[Sample]:
    assert all(isinstance(item, Sample) for item in items), items
    return [item for item in items if isinstance(item, Sample)]


class Listed:
    """Items out of a list, with what a test wants beside them."""

    def __init__(self, items: list[Any], **more: Any) -> None:
        self.items = items
        self.__dict__ |= more

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        item = self.items[index]
        return item() if callable(item) else item


def picture(seed: int, shape: tuple[int, ...] = (9, 8, 3)) -> Any:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def fake(train: bool = True, size: int = 5) -> FakeData:
    return FakeData(size=size, image_size=(3, 20, 24), num_classes=4, random_offset=9 * train)


def test_a_data_set_of_torchvision() -> None:
    splits: dict[str, dict[str, Any]] = {"train": {"train": True}, "test": {"train": False}}
    made = source("fake", kwargs={"size": 7}, splits=splits)
    catalog, found = read_all(made)
    assert {split: len(items) for split, items in found.items()} == {"train": 7, "test": 7}
    assert catalog.highest_label is not None
    for split, items in found.items():
        theirs = fake(size=7, **splits[split])
        for row, sample in enumerate(good(items)):
            image, label = theirs[row]
            assert sample.record_id == f"{split}_{row:06d}"
            assert sample.label == int(label)
            np.testing.assert_array_equal(
                sample.image_CHW, frame(np.asarray(image), (12, 10), FRAMING)
            )


def tensors() -> TensorDataset:
    images = torch.rand(6, 3, 12, 10, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return TensorDataset(images, torch.tensor([0, 2, 1, 2, 0, 1]))


def test_tensors_of_the_models_size_are_taken_as_they_are() -> None:
    catalog, found = read_all(source("tensors", classes=("a", "b", "c")))
    assert (catalog.dtype, catalog.channels) == ("float32", 3)
    samples = good(found["test"])
    np.testing.assert_array_equal(
        np.stack([sample.image_CHW for sample in samples]), tensors().tensors[0].numpy()
    )
    assert [sample.label for sample in samples] == tensors().tensors[1].tolist()


def subset() -> Subset[Any]:
    items = [picture(i) for i in range(6)]
    ids, classes = [f"id {i}" for i in range(6)], ["cat", "eel"]
    inner = Listed([(x, i % 2) for i, x in enumerate(items)], record_ids=ids, classes=classes)
    return Subset(inner, [5, 0, 3])  # type: ignore[arg-type]


def test_a_subset_tells_what_the_data_set_in_it_does() -> None:
    catalog, found = read_all(source("subset"))
    assert catalog.classes == ("cat", "eel")
    assert [s.record_id for s in good(found["test"])] == ["id 5", "id 0", "id 3"]
    assert [s.label for s in good(found["test"])] == [1, 0, 1]


def mappings() -> Listed:
    tensor = [torch.from_numpy(picture(i, (1, 12, 10))).float() for i in range(4)]
    return Listed(
        [{"image": t, "label": torch.tensor(i % 2), "id": i} for i, t in enumerate(tensor)]
    )


def test_mappings_as_monai_has_them(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    catalog, found = read_all(source("mappings"))
    assert (catalog.channels, catalog.classes) == (1, ("0", "1"))
    assert [(s.record_id, s.label) for s in good(found["test"])] == [
        ("0", 0),
        ("1", 1),
        ("2", 0),
        ("3", 1),
    ]
    assert "all 4 items are read for the catalog: its ids are told by its items" in caplog.text


IMAGES: dict[str, tuple[Any, Any]] = {
    "HWC": (picture(0), picture(0)),
    "HW": (picture(0, (9, 8)), picture(0, (9, 8))),
    "CHW": (picture(0, (3, 9, 8)), picture(0, (3, 9, 8)).transpose(1, 2, 0)),
    "tensor": (torch.from_numpy(picture(0, (3, 9, 3))), picture(0, (3, 9, 3)).transpose(1, 2, 0)),
    "bool": (picture(0, (9, 8)) > 99, np.where(picture(0, (9, 8)) > 99, 255, 0).astype(np.uint8)),
    "bf16": (torch.ones(1, 9, 8, dtype=torch.bfloat16), np.ones((9, 8), np.float32)),
    "float64": (picture(0) / 255, (picture(0) / 255).astype(np.float32)),
    "PIL": (Image.fromarray(picture(0)), picture(0)),
    "PIL grey": (Image.fromarray(picture(0, (9, 8))), np.repeat(picture(0, (9, 8, 1)), 3, -1)),
    "grad": (torch.ones(1, 9, 8, requires_grad=True), np.ones((9, 8), np.float32)),
}


def one(name: str) -> Listed:
    return Listed([IMAGES[name][0]])


@pytest.mark.parametrize("name", IMAGES)
def test_pictures_of_every_kind(name: str) -> None:
    _, found = read_all(source("one", kwargs={"name": name}))
    (sample,) = good(found["test"])
    assert sample.label == -1
    np.testing.assert_array_equal(sample.image_CHW, frame(IMAGES[name][1], (12, 10), FRAMING))


BROKEN: dict[str, tuple[Any, str]] = {
    "int64": (torch.ones(1, 9, 8, dtype=torch.int64), "a type without a range"),
    "4-D": (np.zeros((1, 1, 9, 8), np.uint8), r"shape \(1, 1, 9, 8\)"),
    "axes": (np.zeros((20, 9, 8), np.uint8), "set data.layout to HWC or CHW"),
    "NaN": (np.full((9, 8), np.nan), "NaN or Inf"),
    "text": ("a.png", "the picture is of type str"),
    "no image": ({"img": picture(0)}, "the item has no image.*Set data.image_key"),
    "parts": ((1, 2, 3, 4), "the item has 4 parts"),
}


def broken(name: str) -> Listed:
    return Listed([BROKEN[name][0]])


@pytest.mark.parametrize("name", BROKEN)
def test_items_that_are_none_are_told_at_once(name: str) -> None:
    with pytest.raises(DataError, match=f"None of the first items .*\n  item 0.*{BROKEN[name][1]}"):
        scan_source(source("broken", kwargs={"name": name}))


def fragile() -> Listed:
    def fails() -> Any:
        raise KeyError("no such file in the archive")

    return Listed([(picture(0), "b"), fails, (picture(2), np.array([0, 1])), (picture(3), "a")])


def test_an_item_that_raises_is_a_failure_and_a_vector_no_label() -> None:
    catalog, found = read_all(source("fragile"))
    first, failed, vector, last = found["test"]
    assert catalog.classes == ("a", "b")
    assert isinstance(failed, Failure)
    assert failed.reason == "KeyError: 'no such file in the archive'"
    assert [s.label for s in good([first, vector, last])] == [1, -1, 0]


def augmented() -> Listed:
    return Listed([lambda: np.random.default_rng().integers(0, 256, (9, 8), dtype=np.uint8)])


def stream() -> Any:
    class Stream(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            yield 0

    return Stream()


def same_ids() -> Listed:
    return Listed([(picture(0), 0, "a"), (picture(1), 0, "a")])


@pytest.mark.parametrize(
    ("target", "error", "message"),
    [
        ("augmented", DataError, "Item 0 of test is another picture each time"),
        ("stream", DataError, "makes a Stream without __len__: give a map-style data set"),
        ("same_ids", DataError, "Several items have one id: a"),
        ("missing", ConfigError, "data.target=.*missing: cannot be imported"),
        ("no.such.module", ConfigError, "data.target=no.such.module: cannot be imported"),
    ],
)
def test_what_is_no_data_set_is_refused(target: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scan_source(source(target))


def test_a_placeholder_needs_names() -> None:
    with pytest.raises(ConfigError, match=r"Name them: data\.splits="):
        scan_source(source("one", kwargs={"name": "{split}"}))


class Watched(Listed):
    """Counts how many threads ask for an item at once."""

    def __init__(self) -> None:
        super().__init__([picture(i) for i in range(8)])
        self.inside, self.most = 0, 0
        self.lock = threading.Lock()

    def __getitem__(self, index: int) -> Any:
        with self.lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        time.sleep(0.02)
        with self.lock:
            self.inside -= 1
        return self.items[index]


WATCHED: list[Watched] = []


def watched(number: int) -> Watched:
    WATCHED.append(Watched())
    return WATCHED[-1]


@pytest.mark.parametrize("parallel", [False, True])
def test_items_are_asked_for_one_after_another_unless_told_otherwise(parallel: bool) -> None:
    made = source("watched", parallel=parallel, kwargs={"number": int(parallel)})
    catalog = scan_source(made)
    before = len(WATCHED)
    threads = [
        threading.Thread(target=read_range, args=(made, catalog, "test", row, row + 4))
        for row in (0, 4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(WATCHED) == before, "it is made once in a process"
    assert WATCHED[-1].most == 1 + parallel
