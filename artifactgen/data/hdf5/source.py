"""Images in HDF5 files: one file or many, with splits as groups, as a data set, or as files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import h5py
import numpy as np
from numpy.typing import NDArray

from artifactgen.data.base import Catalog, decode_each, is_of_the_file
from artifactgen.data.hdf5.chunks import read_rows
from artifactgen.data.hdf5.file import Axes, AxesOption, open_shared, sample_dtype, system_errors
from artifactgen.data.hdf5.index import Hdf5Index, Part, Rows
from artifactgen.data.hdf5.scan import Keys, scan_files
from artifactgen.data.image import MAX_PIXELS, channels_first, require_pixels, resize
from artifactgen.data.stored import keep, whole
from artifactgen.errors import RecordError
from artifactgen.types import UNKNOWN_LABEL, Failure, Image, Sample

_READ_BYTES = 32 << 20
"""About the most that one read brings into memory."""


Stored: TypeAlias = Sequence[NDArray[Any]] | NDArray[Any] | h5py.Dataset


@dataclass(frozen=True, slots=True)
class _Ref:
    """Where a record's image lies: in what was read ahead, or still in the file."""

    images: Stored
    position: int
    size: tuple[int, int]
    """(H, W) in pixels."""
    layout: Axes
    label: int
    path: str
    key: str
    row: int
    """In the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hdf5:
    """Records are rows of `images`, (N,H,W), (N,H,W,C) or (N,C,H,W), in files sorted by path.

    Splits, whichever is found: groups (`train/images`, `train/labels`, …); a data set `split` of N
    strings beside `images`; `train`, `val` or `test` (or `training`, `valid`, …) as a word of the
    file's name (`scans_train_01.h5`); else every record is `test`.

    Ids are `record_ids`, N strings or integers, unique over all files and splits; else
    `<file>_<row>`, or `<file>_<group>_<row>` where splits are groups. `labels` holds N integers,
    negative where unknown, below a million. Names of the classes: the option, else the attribute
    `classes` of the labels or of the file, else "0", "1", … up to the highest label.

    uint8 and uint16 images stay what they are; bool becomes 0 and 255, floats
    become float32 as they are. Signed and wider integers are refused: they have no range that
    pixels could be scaled by. A record with NaN or Inf is a `Failure`.
    """

    path: str
    """A file or a glob."""
    image_size: tuple[int, int] | None = None
    images_key: str = "images"
    labels_key: str = "labels"
    record_ids_key: str = "record_ids"
    split_key: str = "split"
    classes: tuple[str, ...] | None = None
    layout: AxesOption = "auto"
    """Axes of one image; auto: four or fewer last = HWC, else 16 or fewer first = CHW."""
    max_pixels: int = MAX_PIXELS
    """A record whose image has more, H × W, is a `Failure`."""
    keep_stored: bool = False
    """Whether samples bring the stored image to draw on; filled by the driver."""

    def scan(self) -> Catalog:
        """Check every file, and read labels, ids and splits; no image is read.

        Raises:
            DataError: no file, a file that is not as configured, or ids that are not unique.
        """
        keys = Keys(self.images_key, self.labels_key, self.record_ids_key, self.split_key)
        return scan_files(self.path, keys=keys, layout=self.layout, classes=self.classes)

    def read(
        self, catalog: Catalog, split: str, start: int, stop: int
    ) -> Iterator[Sample | Failure]:
        """Decode rows `start` to `stop` of a split, each a `Sample` or a `Failure`."""
        index = catalog.splits[split]
        assert isinstance(index, Hdf5Index)
        assert self.image_size is not None, "the driver fills in the model's input size"
        for part in index.pieces(start, stop):
            with system_errors(part.path):
                file = open_shared(part.path)
                images = file[part.images]
                labels = None if part.labels is None else file[part.labels]
                for block in _blocks(part, images):
                    found = _refs(block, images, labels, max_pixels=self.max_pixels)
                    refs = list(zip(block.ids(), found, strict=True))
                    yield from decode_each(refs, self._decode, split=split, start=start)
                    start += len(refs)

    def files(self, catalog: Catalog, split: str, start: int, stop: int) -> Iterator[str]:
        """Paths of the files that rows `start` to `stop` of a split lie in."""
        index = catalog.splits[split]
        assert isinstance(index, Hdf5Index)
        return (part.path for part in index.pieces(start, stop))

    def _decode(self, row: int, record_id: str, ref: _Ref) -> Sample:
        assert self.image_size is not None
        require_pixels(ref.size, self.max_pixels)
        with system_errors(ref.path):
            stored = _stored(ref.images, ref.position)
        stored_CHW = _as_image(stored, ref.layout)
        image_CHW = resize(stored_CHW, self.image_size)
        kept = None
        if self.keep_stored:
            again = partial(_read_again, ref.path, ref.key, ref.row, ref.layout)
            kept = keep(stored_CHW, whole(ref.size), again)
        return Sample(record_id, row, image_CHW, ref.label, ref.size, kept)


def _blocks(part: Part, images: h5py.Dataset) -> Iterator[Part]:
    """Cut the rows into runs that are worth one read each, of about `_READ_BYTES` at most.

    Rows that lie within one chunk of each other stay together: it is decompressed only once.
    """
    reach = images.chunks[0] if images.chunks else 1
    longest = max(1, _READ_BYTES // (images.dtype.itemsize * math.prod(images.shape[1:])))
    begin = 0
    for i in range(1, len(part.rows) + 1):
        if i == len(part.rows) or not _together(part.rows, begin, i, reach, longest):
            yield replace(part, rows=part.rows[begin:i])
            begin = i


def _together(rows: Rows, begin: int, i: int, reach: int, longest: int) -> bool:
    return bool(rows[i] - rows[i - 1] <= reach and rows[i] - rows[begin] < longest)


def _refs(
    block: Part, images: h5py.Dataset, labels: h5py.Dataset | None, *, max_pixels: int
) -> list[_Ref]:
    """Read labels and images of a block at once, or leave the images to be read one at a time."""
    first, stop, offset = int(block.rows[0]), int(block.rows[-1]) + 1, 0
    unknown = np.full(stop - first, UNKNOWN_LABEL)
    labels_of_block = unknown if labels is None else labels[first:stop]
    stored: Stored = images
    size = _size(images, block.layout)
    if math.prod(size) <= max_pixels:
        try:
            with system_errors(block.path):
                stored, offset = read_rows(images, first, stop), first
        except OSError as error:  # one broken chunk must not take the others along
            if not is_of_the_file(error):
                raise
    return [
        _Ref(
            stored,
            int(row) - offset,
            size,
            block.layout,
            max(int(labels_of_block[row - first]), UNKNOWN_LABEL),
            block.path,
            block.images,
            int(row),
        )
        for row in block.rows
    ]


def _stored(images: Stored, position: int) -> NDArray[Any]:
    if isinstance(images, h5py.Dataset):
        images, position = read_rows(images, position, position + 1), 0
    return np.asarray(images[position])


def _read_again(path: str, key: str, row: int, layout: Axes) -> Image:
    with system_errors(path):
        return _as_image(_stored(open_shared(path)[key], row), layout)


def _size(images: h5py.Dataset, layout: Axes) -> tuple[int, int]:
    """(H, W) of each image."""
    return images.shape[1 + layout.index("H")], images.shape[1 + layout.index("W")]


def _as_image(stored: NDArray[Any], layout: Axes) -> Image:
    """One stored image as (C, H, W) in the type of the samples."""
    with np.errstate(over="ignore"):
        image: Image = stored.astype(sample_dtype(stored.dtype), copy=False)
    if stored.dtype.kind == "b":
        image = image * np.uint8(255)
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise RecordError("NaN or Inf among the pixels, or beyond float32")
    if layout == "HW":
        return image[np.newaxis]
    return channels_first(image) if layout == "HWC" else image
