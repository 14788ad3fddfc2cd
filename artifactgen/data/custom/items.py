"""What an item of a user's data set is: its picture as an array, its label and its id.

No item is known by its class but Pillow's pictures: tensors are whatever gives an array.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from artifactgen.data.decoding import Mode, pixels_of
from artifactgen.errors import RecordError, did_you_mean
from artifactgen.types import UNKNOWN_LABEL

Layout = Literal["auto", "HW", "HWC", "CHW"]
_LABELS, _IDS = ("label", "labels", "target"), ("id", "record_id")
_MOST_LAST, _MOST_FIRST = 4, 16
"""Channels behind the rows and columns, and before them, unless the layout is given."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How items are taken apart."""

    image_key: str = "image"
    label_key: str | None = None
    id_key: str | None = None
    layout: Layout = "auto"
    mode: Mode = "RGB"


@dataclass(frozen=True, slots=True)
class Item:
    """An item, taken apart."""

    image: NDArray[Any]
    """(H, W) or (H, W, C): uint8, uint16 or float32."""
    label: int | str
    """Index or name of the class; -1 where it is unknown."""
    record_id: str | None
    is_array: bool
    """Whether the data set gave numbers, and no picture of Pillow's."""


def take_apart(item: Any, rules: Rules) -> Item:
    """Find picture, label and id of an item.

    Args:
        item: a mapping; or a tuple of picture, label and id, of which the last may be missing; or a
            picture.
        rules: keys of mappings, and axes of arrays.

    Raises:
        RecordError: there is no picture in it, or none that could be one.
    """
    image, label, record_id = _parts(item, rules)
    is_array = not isinstance(image, Pillow.Image)
    pixels = _pixels(image, rules) if is_array else pixels_of(image, rules.mode)
    name = None if record_id is None else str(_plain(record_id))
    return Item(pixels, label_of(label), name, is_array)


def label_of(value: Any) -> int | str:
    """The index or the name of one class; -1 for what is neither, such as a vector."""
    plain = _plain(value)
    if isinstance(plain, str):
        return plain
    if isinstance(plain, (int, float)) and float(plain).is_integer():
        return max(int(plain), UNKNOWN_LABEL)
    return UNKNOWN_LABEL


def _parts(item: Any, rules: Rules) -> tuple[Any, Any, Any]:
    if isinstance(item, Mapping):
        if rules.image_key not in item:
            near = did_you_mean(rules.image_key, map(str, item))
            raise RecordError(f"the item has no {rules.image_key}. {near} Set data.image_key")
        label = _first_of(item, rules.label_key, _LABELS, option="label_key")
        return item[rules.image_key], label, _first_of(item, rules.id_key, _IDS, option="id_key")
    if not isinstance(item, (tuple, list)):
        return item, None, None
    if not 1 <= len(item) <= 3:
        raise RecordError(f"the item has {len(item)} parts; give a picture, a label and an id")
    image, label, record_id = (*item, None, None)[:3]
    return image, label, record_id


def _first_of(item: Mapping[Any, Any], key: str | None, usual: tuple[str, ...], option: str) -> Any:
    if key is not None and key not in item:
        near = did_you_mean(key, map(str, item))
        raise RecordError(f"the item has no {key}. {near} Set data.{option}")
    return next((item[name] for name in ((key,) if key else usual) if name in item), None)


def _pixels(image: Any, rules: Rules) -> NDArray[Any]:
    is_tensor = hasattr(image, "detach")
    array = _array(image)
    if array.ndim == 3 and _is_channels_first(array.shape, rules.layout, is_tensor=is_tensor):
        array = np.moveaxis(array, 0, -1)
    elif array.ndim not in (2, 3):
        raise RecordError(f"the picture has shape {array.shape}; (H, W), (H, W, C) or (C, H, W)")
    if array.dtype.kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "f":
        floats = array.astype(np.float32, copy=False)
        if not np.isfinite(floats).all():
            raise RecordError("NaN or Inf among the pixels, or beyond float32")
        return floats
    if array.dtype not in (np.uint8, np.uint16):
        raise RecordError(
            f"the picture is of {array.dtype}, a type without a range that pixels could be scaled "
            "by: give uint8, uint16 or floats"
        )
    return array


def _array(image: Any) -> NDArray[Any]:
    """What a tensor or an array holds."""
    if hasattr(image, "detach"):
        image = image.detach().cpu()
        image = image.float() if "bfloat16" in str(image.dtype) else image
    array = np.asarray(image)
    if array.dtype.kind not in "buif":
        what = type(image).__name__
        raise RecordError(f"the picture is of type {what}; give a tensor, an array or a PIL image")
    return array


def _is_channels_first(shape: tuple[int, ...], layout: Layout, *, is_tensor: bool) -> bool:
    if layout != "auto":
        return layout == "CHW"
    if is_tensor or shape[-1] > _MOST_LAST:
        if shape[0] > _MOST_FIRST and not is_tensor:
            raise RecordError(f"the picture has shape {shape}: set data.layout to HWC or CHW")
        return True
    return False


def _plain(value: Any) -> Any:
    """A scalar of NumPy or of a tensor as one of Python."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
