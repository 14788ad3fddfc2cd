"""What a checkpoint's pickle may import, and what one would import that may not.

No allowed class runs code of the checkpoint's choosing; `functools.partial` or `getattr` would.
What OmegaConf names is not imported at all: an inert object stands for each of it, whatever its
version, so that hyper-parameters of Hydra programs can be read without it.
"""

from __future__ import annotations

import argparse
import collections
import io
import pathlib
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

_HARMLESS = re.compile(r"collections\.OrderedDict|torch\._utils\._rebuild_\w+|torch\.\w+Storage")
_LEGACY_PICKLES = 4
"""Before torch 1.6 a file was four pickles in a row: number, protocol, system, object."""


_INERT = (
    *(f"omegaconf.{name}Config" for name in ("dictconfig.Dict", "listconfig.List")),
    "omegaconf.tupleconfig.TupleConfig",
    *("omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata"),
    *(
        f"omegaconf.nodes.{kind}Node"
        for kind in ("Any", "String", "Integer", "Float", "Boolean", "Bytes", "Path")
    ),
    # What it says of types: `typing.Tuple[typing.Any, ...]`.
    *(f"typing.{name}" for name in ("Any", "Dict", "List", "Optional", "Tuple", "Union")),
    *(f"builtins.{name}" for name in ("Ellipsis", "bool", "bytes", "float", "str", "tuple")),
    "_operator.getitem",
)
"""Names in place of which a file of OmegaConf's gets an `Inert`."""


class Inert:
    """Stands for a class or function that a checkpoint names: takes any state, does nothing."""

    def __init__(self, *_: object) -> None:
        pass

    @property
    def content(self) -> Any:
        """The values of a container of OmegaConf, or the one of a node."""
        return vars(self).get("_content", vars(self).get("_val"))


def allowed_globals() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """The classes that a checkpoint may name beside those of torch: plain data, no behaviour."""
    plain: list[Any] = [argparse.Namespace, dict, list, int, collections.defaultdict]
    # Python 3.13 moved the class; files carry either name.
    paths = [(pathlib.PosixPath, f"{module}.PosixPath") for module in ("pathlib", "pathlib._local")]
    return [*plain, *paths, *_numpy_globals(), *((Inert, name) for name in _INERT)]


def _numpy_globals() -> Iterator[Any]:
    scalar = np.float64(0).__reduce__()[0]
    reconstruct = np.empty(0).__reduce__()[0]
    # NumPy 2 renamed the module; files carry either name.
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):
        yield scalar, f"{module}.scalar"
        yield reconstruct, f"{module}._reconstruct"
    yield from (np.ndarray, np.dtype)
    codes = np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"
    yield from {type(np.dtype(code)) for code in codes}


def refused_globals(path: Path, error: Exception) -> list[str]:
    """Functions and classes for which `torch.load` refused a file, sorted; none for a broken file.

    Call it inside the `safe_globals` of that load. Nothing is unpickled.
    """
    if not isinstance(error, pickle.UnpicklingError):
        return []
    with suppress(ValueError, RuntimeError, EOFError, pickle.UnpicklingError):
        if names := torch.serialization.get_unsafe_globals_in_checkpoint(path):
            return sorted(names)
    # No archive, or a pickle protocol that torch does not take apart.
    with suppress(zipfile.BadZipFile):
        return sorted(name for name in _all_globals(path) if not _is_known(name))
    return []


def _is_known(name: str) -> bool:
    allowed = (entry if isinstance(entry, tuple) else (entry, "") for entry in allowed_globals())
    names = {given or f"{item.__module__}.{item.__qualname__}" for item, given in allowed}
    return name in names or _HARMLESS.fullmatch(name) is not None


def _all_globals(path: Path) -> set[str]:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as stream:
            return {name for _ in range(_LEGACY_PICKLES) for name in _named(stream)}
    with zipfile.ZipFile(path) as archive:
        pickles = (name for name in archive.namelist() if name.endswith("data.pkl"))
        return {name for member in pickles for name in _named(io.BytesIO(archive.read(member)))}


def _named(stream: IO[bytes]) -> Iterator[str]:
    """Dotted names in one pickle, as far as it can be read."""
    strings: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name in ("GLOBAL", "INST"):
                yield str(argument).replace(" ", ".")
            elif opcode.name == "STACK_GLOBAL":
                yield ".".join(strings[-2:])
            elif isinstance(argument, str):
                strings.append(argument)
    except (ValueError, EOFError):
        return
