"""Which columns of a table hold pictures, labels and ids, told by its schema."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from artifactgen.errors import DataError, did_you_mean

_LABELS = ("label", "labels")
_LISTED = 30


@dataclass(frozen=True, slots=True)
class Asked:
    """Names of columns as the user gave them; None = to be found."""

    image: str | None = None
    label: str | None = None
    record_id: str | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that are read; a dot goes into a struct (`image.path`)."""

    image: str
    is_list: bool
    """Whether a row holds a list of pictures."""
    label: str | None
    record_id: str | None
    split: str | None
    class_names: tuple[str, ...]
    """Of the labels, as the table's own description has them; else empty."""

    @property
    def of_a_row(self) -> tuple[str, ...]:
        """What is read of a record beside its id."""
        return (self.image, *((self.label,) if self.label else ()))


def find_columns(schema: Any, asked: Asked, *, path: str) -> Columns:
    """Find the columns by the features that `datasets` describes in a table, else by their types.

    Args:
        schema: `pyarrow.Schema`.
        asked: what the user gave.
        path: of the table, for messages.

    Raises:
        DataError: a column is not there, of no use, or one of several that could be meant.
    """
    features = _features(schema)
    image = _image(schema, features, asked.image, path)
    label = _label(schema, features, asked.label, path)
    texts = (pa.types.is_string, pa.types.is_large_string, _is_dictionary_of_text)
    return Columns(
        image=image,
        is_list=_is_list(column_type(schema, image)),
        label=label,
        record_id=_named(schema, asked.record_id, "record_id", (*texts, pa.types.is_integer), path),
        split=_named(schema, asked.split, "split", texts, path),
        class_names=_class_names(features.get(label or "")),
    )


def column_type(schema: Any, name: str) -> Any:
    """The type of a column; None where there is none of the name."""
    if name in schema.names:
        return schema.field(name).type
    first, *below = name.split(".")
    kind = schema.field(first).type if first in schema.names else None
    for part in below:
        if kind is None or not pa.types.is_struct(kind):
            return None
        index = kind.get_field_index(part)
        kind = None if index < 0 else kind.field(index).type
    return kind


def describe(schema: Any) -> str:
    """A sentence that lists the columns of a table."""
    names = [f"{field.name} ({_short(field.type)})" for field in schema][:_LISTED]
    return f"Its columns: {', '.join(names) or 'none'}{', …' if len(schema) > _LISTED else ''}."


def _short(kind: Any) -> str:
    text = str(kind)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _features(schema: Any) -> Mapping[str, Any]:
    """What `datasets` wrote of the columns, see https://huggingface.co/docs/datasets/about_arrow."""
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return found if isinstance(found, Mapping) else {}


def _image(schema: Any, features: Mapping[str, Any], asked: str | None, path: str) -> str:
    if asked is not None:
        kind = column_type(schema, asked)
        if kind is None or not _holds_pictures(kind):
            raise _no_use(schema, "image", asked, kind, "files of pictures", path)
        return asked
    described = [name for name in schema.names if _is_feature(features.get(name), "Image")]
    found: list[str] = described or [field.name for field in schema if _holds_pictures(field.type)]
    if len(found) == 1:
        return found[0]
    if found:
        some = " or ".join(f"data.image_column={name}" for name in found[:5])
        raise DataError(f"{path}: several columns hold pictures. Set {some}.")
    raise DataError(
        f"{path}: no column holds files of pictures (binary, or a struct of bytes and path). "
        f"{describe(schema)}"
    )


def _label(schema: Any, features: Mapping[str, Any], asked: str | None, path: str) -> str | None:
    if asked is not None:
        kind = column_type(schema, asked)
        if kind is None or not _holds_labels(kind):
            raise _no_use(schema, "label", asked, kind, "labels (integers or texts)", path)
        return asked
    described = [name for name in schema.names if _is_feature(features.get(name), "ClassLabel")]
    usual = [n for n in _LABELS if n in schema.names and _holds_labels(schema.field(n).type)]
    found = [name for name in described if name in usual] or described or usual
    if len(found) > 1:
        some = " or ".join(f"data.label_column={name}" for name in found[:5])
        raise DataError(f"{path}: several columns hold labels. Set {some}.")
    return found[0] if found else None


def _named(
    schema: Any, asked: str | None, usual: str, checks: Iterable[Any], path: str
) -> str | None:
    kind = column_type(schema, asked or usual)
    fits = kind is not None and any(check(kind) for check in checks)
    if asked is None:
        return usual if fits else None
    if not fits:
        option = "id" if usual == "record_id" else usual
        raise _no_use(schema, option, asked, kind, "such values", path)
    return asked


def _no_use(schema: Any, option: str, asked: str, kind: Any, wanted: str, path: str) -> DataError:
    what = f"data.{option}_column={asked}"
    if kind is None:
        near = did_you_mean(asked, schema.names)
        return DataError(f"{what}: {path} has no such column. {near}")
    return DataError(f"{what}: {path} has {_short(kind)} there, not {wanted}. {describe(schema)}")


def _is_feature(feature: Any, kind: str) -> bool:
    """Whether a feature is of a kind, or a list of such."""
    if isinstance(feature, list):
        return len(feature) == 1 and _is_feature(feature[0], kind)
    if not isinstance(feature, Mapping):
        return False
    if feature.get("_type") in ("List", "LargeList", "Sequence"):
        return kind == "Image" and _is_feature(feature.get("feature"), kind)
    return bool(feature.get("_type") == kind)


def _class_names(feature: Any) -> tuple[str, ...]:
    names = feature.get("names") if isinstance(feature, Mapping) else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _holds_pictures(kind: Any) -> bool:
    if _is_list(kind):
        kind = kind.value_type
    if pa.types.is_struct(kind):
        index = kind.get_field_index("bytes")
        return index >= 0 and _is_binary(kind.field(index).type)
    return _is_binary(kind)


def _holds_labels(kind: Any) -> bool:
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    is_number = pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    return bool(is_text or is_number or _is_dictionary_of_text(kind))


def _is_dictionary_of_text(kind: Any) -> bool:
    return bool(pa.types.is_dictionary(kind) and pa.types.is_string(kind.value_type))


def _is_binary(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))
