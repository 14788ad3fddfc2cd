"""What the data sets of the splits hold, as far as they tell it, and of their items where not."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from artifactgen.data.base import Catalog, decode_each
from artifactgen.data.classes import class_names, names_of_texts
from artifactgen.data.custom.items import Item, label_of
from artifactgen.data.custom.making import told_classes, told_values
from artifactgen.data.listing import LABEL, Listing, ListingWriter, digest_of, repeated_ids
from artifactgen.data.sampling import even_rows
from artifactgen.errors import DataError
from artifactgen.types import UNKNOWN_LABEL, Failure

log = logging.getLogger(__name__)
ReadItem = Callable[[Any, int], Item]
_LOOKED_AT = 64
_LOOKED_AT_TWICE = 8


@dataclass(slots=True)
class _Told:
    """What is known of the items of a split, in their order."""

    dataset: Any
    ids: list[Any] | None
    labels: list[Any] | None


@dataclass(frozen=True, slots=True)
class _Seen:
    """An item that was looked at."""

    split: str
    row: int
    item: Item | Failure


def catalog_of(
    datasets: Mapping[str, Any], read_item: ReadItem, *, given: tuple[str, ...] | None
) -> Catalog:
    """The catalog of the data sets of all splits.

    Args:
        datasets: by split.
        read_item: (data set, index) to an item; may raise anything.
        given: names of the classes.

    Raises:
        DataError: there is no record, they change from one time to the next, or ids are not unique.
    """
    told = {split: _ask(dataset) for split, dataset in datasets.items()}
    seen = _look(told, read_item)
    known = given or _common_classes(datasets)
    if reason := _why_all(told, seen, known):
        _read_all(told, read_item, reason)
    classes, highest = _classes(told, known)
    listings = {split: _list(split, of, classes) for split, of in told.items()}
    if twice := repeated_ids([w[0] for w in listings.values()], [w[1] for w in listings.values()]):
        raise DataError(f"Several items have one id: {', '.join(twice)}.")
    splits = {split: listing for split, (listing, _) in listings.items()}
    first = next(found.item for found in seen if isinstance(found.item, Item))
    return Catalog(
        splits=splits,
        classes=classes,
        channels=first.image.shape[2] if first.image.ndim == 3 else 1,
        identity=digest_of(splits, classes),
        content=_content(seen),
        dtype=str(first.image.dtype),
        highest_label=highest,
    )


def _ask(dataset: Any) -> _Told:
    ids = told_values(dataset, "record_ids")
    return _Told(dataset, ids, told_values(dataset, "targets", "labels"))


def _look(told: Mapping[str, _Told], read_item: ReadItem) -> list[_Seen]:
    """Some items of all splits, evenly spaced."""
    lengths: dict[str, Sized] = {split: range(len(of.dataset)) for split, of in told.items()}
    places = list(even_rows(lengths, _LOOKED_AT)) if any(map(len, lengths.values())) else []
    if not places:
        raise DataError("The data set has no items.")
    seen = [_read(told[split].dataset, split, row, read_item) for split, row in places]
    reasons = [
        f"item {found.row} of {found.split}: {found.item.reason}"
        for found in seen
        if isinstance(found.item, Failure)
    ]
    if len(reasons) == len(seen):
        raise DataError("\n  ".join(["None of the first items can be used:", *reasons[:5]]))
    good = [found for found in seen if isinstance(found.item, Item)][:_LOOKED_AT_TWICE]
    for found in good:
        again = _read(told[found.split].dataset, found.split, found.row, read_item)
        if _content([again]) != _content([found]):
            raise DataError(
                f"Item {found.row} of {found.split} is another picture each time: the data set "
                "changes its items by chance. Switch its augmentation off."
            )
    return seen


def _read(dataset: Any, split: str, row: int, read_item: ReadItem) -> _Seen:
    refs = [(f"item {row}", dataset)]
    (item,) = decode_each(refs, lambda i, _, of: read_item(of, i), split=split, start=row)
    return _Seen(split, row, item)


def _why_all(
    told: Mapping[str, _Told], seen: Sequence[_Seen], classes: tuple[str, ...]
) -> str | None:
    """Why all items are to be read; None where the data sets tell enough."""
    items = [(told[found.split], found.item) for found in seen]
    if any(isinstance(i, Item) and i.record_id is not None and of.ids is None for of, i in items):
        return "its ids are told by its items alone; give it an attribute record_ids"
    if not classes and any(
        isinstance(i, Item) and i.label != UNKNOWN_LABEL and of.labels is None for of, i in items
    ):
        return "its labels are told by its items alone; set data.classes"
    return None


def _read_all(told: Mapping[str, _Told], read_item: ReadItem, reason: str) -> None:
    count = sum(len(of.dataset) for of in told.values())
    log.info("Data: all %s items are read for the catalog: %s", f"{count:,}", reason)
    for split, of in told.items():
        ids, labels = [], list[Any]()
        for row in range(len(of.dataset)):
            item = _read(of.dataset, split, row, read_item).item
            ids.append(item.record_id if isinstance(item, Item) else None)
            labels.append(item.label if isinstance(item, Item) else UNKNOWN_LABEL)
        of.ids = of.ids or ids
        of.labels = of.labels or labels


def _common_classes(datasets: Mapping[str, Any]) -> tuple[str, ...]:
    found = {
        names: split for split, dataset in datasets.items() if (names := told_classes(dataset))
    }
    if len(found) > 1:
        raise DataError(
            f"The splits {' and '.join(found.values())} have different classes. Set data.classes."
        )
    return next(iter(found), ())


def _classes(
    told: Mapping[str, _Told], known: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, int] | None]:
    """Names of the classes, and the item with the highest label where they are numbers."""
    labels = [
        (label_of(label), _id(split, row, of))
        for split, of in told.items()
        for row, label in enumerate(of.labels or ())
    ]
    names = names_of_texts(label for label, _ in labels if isinstance(label, str))
    if known or names:
        return known or names, None
    numbers = [(label, where) for label, where in labels if isinstance(label, int)]
    label, where = max(numbers, default=(UNKNOWN_LABEL, ""), key=lambda found: found[0])
    highest = (where, label) if label >= 0 else None
    return class_names((), highest), highest


def _list(split: str, of: _Told, classes: tuple[str, ...]) -> tuple[Listing, Any]:
    writer = ListingWriter({LABEL: pa.int32()})
    numbers = {name: number for number, name in enumerate(classes)}
    for row in range(len(of.dataset)):
        label = label_of(of.labels[row]) if of.labels is not None else UNKNOWN_LABEL
        number = label if isinstance(label, int) else numbers.get(label, UNKNOWN_LABEL)
        writer.add(_id(split, row, of), number)
    return writer.finish(), writer.hashes


def _id(split: str, row: int, of: _Told) -> str:
    name = of.ids[row] if of.ids is not None else None
    return f"{split}_{row:06d}" if name is None else str(name)


def _content(seen: Sequence[_Seen]) -> str:
    """A digest of the pictures that were looked at."""
    digest = hashlib.sha256()
    for found in seen:
        if isinstance(found.item, Failure):
            digest.update(b"\0")
        else:
            digest.update(repr(found.item.image.shape).encode() + found.item.image.tobytes())
    return digest.hexdigest()
