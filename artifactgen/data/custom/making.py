"""Data sets of the user's own: found by name, made once in a process, asked what they know."""

from __future__ import annotations

import importlib
import json
import os
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from artifactgen.errors import ConfigError, DataError

Arguments = Mapping[str, Any]
_PLACEHOLDER = "{split}"
_KEPT = 16
_making = threading.Lock()


def arguments_of(
    kwargs: Arguments, splits: Mapping[str, Arguments] | Sequence[str] | None
) -> dict[str, dict[str, Any]]:
    """The arguments that the data set of each split is made with.

    Args:
        kwargs: of all; `{split}` in a text stands for the name of the split.
        splits: further ones of each, or names alone; None = one data set, which is `test`.

    Raises:
        ConfigError: `{split}` stands for nothing.
    """
    if splits is None:
        if _PLACEHOLDER in repr(dict(kwargs)):
            raise ConfigError(
                f"data.kwargs has {_PLACEHOLDER}, but there is no split that it could stand for. "
                "Name them: data.splits=[train,val,test]."
            )
        return {"test": dict(kwargs)}
    own = splits if isinstance(splits, Mapping) else {name: {} for name in splits}
    return {
        name: {**_filled(kwargs, name), **_filled(further or {}, name)}
        for name, further in own.items()
    }


def _filled(value: Any, split: str) -> Any:
    """A value with the name of the split where its texts have the placeholder."""
    if isinstance(value, str):
        return value.replace(_PLACEHOLDER, split)
    if isinstance(value, Mapping):
        return {key: _filled(inner, split) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_filled(inner, split) for inner in value]
    return value


def make(target: str, kwargs: Arguments) -> Any:
    """A data set, which is made once in a process.

    Raises:
        ConfigError: there is no such class.
        DataError: it has no length or no items.
    """
    with _making:
        return _made(target, json.dumps(kwargs, sort_keys=True, default=str), os.getpid())


@lru_cache(_KEPT)
def _made(target: str, kwargs: str, pid: int) -> Any:
    del pid  # a forked child makes its own: file handles are not shared
    dataset = _find(target)(**json.loads(kwargs))
    missing = [name for name in ("__len__", "__getitem__") if not hasattr(dataset, name)]
    if missing:
        raise DataError(
            f"data.target={target} makes a {type(dataset).__name__} without {missing[0]}: give a "
            "map-style data set, whose items are asked for by number."
        )
    return dataset


def _find(target: str) -> Any:
    module, _, name = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"data.target={target}: cannot be imported ({error}). Give the dotted name of a class, "
            "or of a function that makes a data set; its folder in PYTHONPATH, or beside your "
            "--config-dir."
        ) from error


def told_classes(dataset: Any) -> tuple[str, ...]:
    """Names of the classes by label, where the data set has them under `classes`."""
    names = getattr(dataset, "classes", None)
    if isinstance(names, (list, tuple)):
        return tuple(
            n if isinstance(n, str) else ", ".join(map(str, np.atleast_1d(n))) for n in names
        )
    inner = getattr(dataset, "dataset", None)
    return told_classes(inner) if inner is not None else ()


def told_values(dataset: Any, *names: str) -> list[Any] | None:
    """A value for each item that a data set tells without reading it, under one of some names.

    `torch.utils.data.Subset` tells what the data set in it does, of its own items.
    """
    for name in names:
        values = getattr(dataset, name, None)
        values = values() if callable(values) else values
        if values is not None and hasattr(values, "__len__") and len(values) == len(dataset):
            return [v.item() if getattr(v, "ndim", 1) == 0 else v for v in values]
    inner, indices = getattr(dataset, "dataset", None), getattr(dataset, "indices", None)
    if inner is None or indices is None:
        return None
    values = told_values(inner, *names)
    return None if values is None else [values[index] for index in indices]
