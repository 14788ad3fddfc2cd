"""The source itself: options, and the reading of ranges."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from artifactgen.data.base import Catalog, decode_each
from artifactgen.data.custom.items import Item, Layout, Rules, take_apart
from artifactgen.data.custom.making import arguments_of, make
from artifactgen.data.custom.scan import catalog_of
from artifactgen.data.decoding import Mode
from artifactgen.data.image import require_pixels
from artifactgen.data.listing import Listing
from artifactgen.data.pictures import Framed
from artifactgen.errors import RecordError
from artifactgen.types import UNKNOWN_LABEL, Failure, Framing, Sample

_AS_IT_IS = Framing(crop_mode="squash")
"""How an array is framed that has the model's size."""
_one_at_a_time = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Custom(Framed):
    """Records are the items of a map-style data set of the user's own.

    An item is a picture; or a tuple of picture, label and id, of which the last may be missing; or
    a mapping. A picture is of Pillow, an array, or a tensor: (H, W), (H, W, C) or (C, H, W), uint8,
    uint16 or floats, which are taken as they are. An array that has the model's size already is not
    resized and cropped again. A label is the index or the name of a class; what is neither, such as
    a vector, counts as unknown.

    Ids: `record_ids` of the data set (an attribute or a method), else those of its items, else
    `<split>_<index>` in six digits. Names of the classes: the option, else `classes` of the data
    set, else numbers or sorted names out of `targets` or `labels`. Where ids or labels are told by
    the items alone, all are read once by the scan.

    It is made once in a process. Its items are asked for one after another, since few data sets
    may be asked in several threads at once; `parallel` says that this one may.
    """

    target: str
    """Dotted name of a class, or of a function that makes a data set."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Its arguments; `{split}` in a text stands for the name of the split."""
    splits: dict[str, dict[str, Any]] | tuple[str, ...] | None = None
    """Further arguments of each split, or their names; None = all is `test`."""
    image_key: str = "image"
    label_key: str | None = None
    """None = `label`, `labels` or `target`, where there is one."""
    id_key: str | None = None
    """None = `id` or `record_id`, where there is one."""
    layout: Layout = "auto"
    """Axes of arrays; auto: of tensors CHW, of others HWC where the last are four or fewer."""
    mode: Mode = "RGB"
    """What pictures of Pillow's of 8 bits are read as."""
    classes: tuple[str, ...] | None = None
    parallel: bool = False
    """Whether items may be asked for in several threads at once."""

    def scan(self) -> Catalog:
        """Ask the data sets for their lengths, ids and labels; some items are looked at.

        Raises:
            ConfigError: there is no such class.
            DataError: no item that is a record, or ids that are not unique.
        """
        datasets = {
            split: make(self.target, kwargs)
            for split, kwargs in arguments_of(self.kwargs, self.splits).items()
        }
        return catalog_of(datasets, self._item, given=self.classes)

    def read(
        self, catalog: Catalog, split: str, start: int, stop: int
    ) -> Iterator[Sample | Failure]:
        """Ask for items `start` to `stop` of a split, each a `Sample` or a `Failure`."""
        index = catalog.splits[split]
        assert isinstance(index, Listing)
        dataset = make(self.target, arguments_of(self.kwargs, self.splits)[split])
        refs = [(name, dataset) for name in index.record_ids(start, stop)]
        numbers = {name: number for number, name in enumerate(catalog.classes)}
        decode = partial(self._decode_row, catalog, numbers)
        return decode_each(refs, decode, split=split, start=start)

    def _decode_row(
        self,
        catalog: Catalog,
        numbers: Mapping[str, int],
        row: int,
        record_id: str,
        dataset: Any,
    ) -> Sample:
        item = self._item(dataset, row)
        if item.record_id not in (None, record_id):
            raise RecordError(
                f"its id is {item.record_id} now: does the order of the items change?"
            )
        require_pixels(item.image.shape[:2], self.max_pixels)
        label = _number(item.label, numbers)
        is_ready = item.is_array and item.image.shape[:2] == self.image_size
        return self.framed(
            item.image,
            record_id,
            row,
            catalog=catalog,
            label=label,
            again=lambda: self._item(dataset, row).image,
            framing=_AS_IT_IS if is_ready else None,
        )

    def _item(self, dataset: Any, index: int) -> Item:
        rules = Rules(self.image_key, self.label_key, self.id_key, self.layout, self.mode)
        with self._alone():
            item = dataset[index]
        return take_apart(item, rules)

    def _alone(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.parallel else _one_at_a_time


def _number(label: int | str, numbers: Mapping[str, int]) -> int:
    if not isinstance(label, str):
        return label if label < len(numbers) else _beyond(label, numbers)
    if label not in numbers:
        raise RecordError(f"its label is {label}, which none of the {len(numbers)} classes is")
    return numbers[label]


def _beyond(label: int, numbers: Mapping[str, int]) -> int:
    if not numbers:
        return UNKNOWN_LABEL
    raise RecordError(f"its label is {label}, but there are {len(numbers)} classes")
