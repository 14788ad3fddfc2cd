"""HDF5 files, opened without trust: handles, and what is in them."""

from __future__ import annotations

import fcntl
import functools
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from artifactgen.data.base import is_of_the_file
from artifactgen.data.content import file_version
from artifactgen.errors import DataError
from artifactgen.filetypes import describe_file

Axes = Literal["HW", "HWC", "CHW"]
"""Axes of one image."""
AxesOption = Literal["auto", "HW", "HWC", "CHW"]

_MAX_LISTED = 20
_OF_OTHERS = ("image", "table", "tar archive", "zip archive", "DICOM", "NIfTI")
"""Words for what other choices of `data` may read."""
_ERRNO = re.compile(r"errno = (\d+)")
_MARKED = "already open for"


def open_checked(path: Path) -> h5py.File:
    """Open read-only, for a scan.

    Without HDF5's file lock: network file systems often lack it, and readers of a file do not
    disturb each other. Whether another program writes the file is asked once, where there are
    locks.

    Raises:
        DataError: the file is missing, cut short, not HDF5, or open for writing.
        OSError: of a kind that may pass.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file, or not a regular one")
    _refuse_writer(path)
    try:
        with system_errors(str(path)):
            return h5py.File(path, "r", locking=False)
    except OSError as error:
        if not is_of_the_file(error):
            raise
        raise DataError(_why_not(path, error)) from error


def _refuse_writer(path: Path) -> None:
    """`DataError` where a program has the file open for writing: HDF5 locks it then."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(
                f"{path} is open for writing in another program. Wait until that has closed it."
            ) from error
        except OSError:
            return  # no locks on this file system


def _why_not(path: Path, error: OSError) -> str:
    if _MARKED in str(error):
        return (
            f"{path} is marked as open for writing: a program is writing it, or was killed while "
            "it did. Wait until it has closed the file. If there is none, see whether the file is "
            f"whole, and clear the mark: h5clear -s {path} (of the HDF5 tools)."
        )
    what = describe_file(path)
    if what is not None and "HDF5" not in what:
        more = f" Ask which choice reads it: generate_artifacts data=auto data.path={path}"
        is_data = any(word in what for word in _OF_OTHERS)
        return f"{path} is {what}; data=hdf5 reads HDF5.{more if is_data else ''}"
    return f"{path} cannot be read as HDF5: {error}. It may be cut short or damaged."


@contextmanager
def system_errors(path: str) -> Iterator[None]:
    """Raise what the system refused as the `OSError` that it was.

    h5py knows its number when a file is opened, and makes a `KeyError` or an `OSError` without a
    number of it when the file is read.
    """
    try:
        yield
    except (OSError, KeyError, RuntimeError) as error:
        number = _ERRNO.search(str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), path) from error


def open_shared(path: str) -> h5py.File:
    """A handle that stays open for further reads of this process.

    A file that was replaced meanwhile is opened anew. A forked child opens its own.
    """
    version = file_version(path)
    with system_errors(path):
        return _open_once(path, os.getpid(), version)


@functools.lru_cache(maxsize=16)
def _open_once(path: str, pid: int, version: tuple[int, ...]) -> h5py.File:
    del pid, version  # they only tell cached handles apart
    return h5py.File(path, "r", locking=False)


def find_dataset(file: h5py.File, key: str) -> h5py.Dataset | None:
    """The data set at `key`, or None where there is none.

    Raises:
        DataError: it is no data set, lies in another file, or is compressed by an unknown filter.
    """
    name = f"{file.filename}: {key}"
    parts = key.strip("/").split("/")
    for depth in range(1, len(parts) + 1):
        link = file.get("/".join(parts[:depth]), getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise DataError(f"{name} is a link; only what the file itself holds is read")
    dataset = file[key]
    if not isinstance(dataset, h5py.Dataset):
        raise DataError(f"{name} is no data set. {describe(file)}")
    if dataset.external or dataset.is_virtual:
        raise DataError(f"{name} keeps its values in other files; only the file itself is read")
    for code, label in _filters(dataset):
        if not h5py.h5z.filter_avail(code):
            raise DataError(f"{name} needs the filter {label or code}; try: pip install hdf5plugin")
    return dataset


def describe(file: h5py.File) -> str:
    """A sentence that lists the data sets of a file, the first twenty of many."""
    found: list[str] = []

    def note(key: str, node: h5py.HLObject) -> bool | None:
        if isinstance(node, h5py.Dataset):
            found.append(f"{key} {node.shape} {node.dtype}")
        return True if len(found) > _MAX_LISTED else None

    file.visititems(note)
    more = ", …" if len(found) > _MAX_LISTED else ""
    return f"The file holds: {', '.join(found[:_MAX_LISTED]) or 'no data set'}{more}."


def where(dataset: h5py.Dataset) -> str:
    """File and key, for a message."""
    return f"{dataset.file.filename}: {dataset.name}"


def find_axes(images: h5py.Dataset, layout: AxesOption) -> Axes:
    """Tell the axes of the images apart.

    Raises:
        DataError: they are not numbers, or their shape does not fit the layout.
    """
    name, shape = where(images), images.shape
    if images.dtype.kind not in "iufb":
        raise DataError(f"{name} holds {images.dtype}, not numbers.")
    if images.dtype.kind in "iu" and sample_dtype(images.dtype).kind == "f":
        raise DataError(
            f"{name} holds {images.dtype}, a type without a range that pixels could be scaled "
            "by. Store uint8 or uint16, or floats as the model takes them."
        )
    if shape is None or len(shape) not in (3, 4) or 0 in shape[1:]:
        raise DataError(f"{name} has shape {shape}; expected (N,H,W), (N,H,W,C) or (N,C,H,W).")
    if layout == "auto":
        return _guess_axes(name, shape)
    if len(layout) != len(shape) - 1:
        raise DataError(f"{name} has shape {shape}, which is not data.layout={layout}.")
    return layout


def _guess_axes(name: str, shape: tuple[int, ...]) -> Axes:
    if len(shape) == 3:
        return "HW"
    if shape[-1] <= 4:
        return "HWC"
    if shape[1] <= 16:
        return "CHW"
    raise DataError(f"{name} has shape {shape}: set data.layout to HWC or CHW.")


def sample_dtype(stored: np.dtype[Any]) -> np.dtype[Any]:
    """Type of the samples of a stored type: uint8 and uint16 stay, bool is uint8, else float32."""
    if stored.kind == "b":
        return np.dtype(np.uint8)
    stays = stored.kind == "u" and stored.itemsize <= 2
    return stored.newbyteorder("=") if stays else np.dtype(np.float32)


def read_strings(dataset: h5py.Dataset, start: int, stop: int) -> list[str]:
    """Rows `start` to `stop` as text: integers written out, invalid UTF-8 as lone surrogates."""
    values = dataset[start:stop]
    if values.dtype.kind in "iu":
        return [str(value) for value in values.tolist()]
    return [
        value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
        for value in values.tolist()
    ]


def _filters(dataset: h5py.Dataset) -> list[tuple[int, str]]:
    """(code, name) of each filter, in the order of writing."""
    plist = dataset.id.get_create_plist()
    found = (plist.get_filter(i) for i in range(plist.get_nfilters()))
    return [(code, name.decode(errors="replace")) for code, _, _, name in found]
