"""What the sources of picture files have in common: options, and one file as a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifactgen.data.base import Catalog, is_of_the_file
from artifactgen.data.decoding import Mode, decode_picture, dtype_of_picture
from artifactgen.data.framing import frame, placement
from artifactgen.data.image import MAX_PIXELS
from artifactgen.data.stored import HELD_BYTES, keep
from artifactgen.errors import DataError, RecordError
from artifactgen.types import UNKNOWN_LABEL, Framing, Image, Sample

ENDINGS = (
    ".png",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".tif",
    ".tiff",
    ".webp",
    ".bmp",
    ".gif",
    ".pgm",
    ".ppm",
)
"""Of names of picture files, in lower case."""
_TRIED = 64


def first_kind(pictures: Iterable[tuple[str, Callable[[], tuple[int, str]]]]) -> tuple[int, str]:
    """Channels and type of the samples, told by the first that is a picture.

    Args:
        pictures: what each is called in messages, and what gives its channels and type.

    Raises:
        DataError: none of the first is.
    """
    reasons = []
    for name, kind_of in islice(pictures, _TRIED):
        try:
            return kind_of()
        except (OSError, RecordError) as error:
            if isinstance(error, OSError) and not is_of_the_file(error):
                raise
            reasons.append(f"{name}: {error}")
    raise DataError("\n  ".join(["None of the first pictures can be read:", *reasons[:5]]))


@dataclass(frozen=True, kw_only=True)
class Framed:
    """Options of sources whose pictures have any size, and are brought to that of the model.

    All pictures of a data set are of one kind: the first tells.
    """

    image_size: tuple[int, int] | None = None
    framing: Framing | None = None
    """How pictures become that size; filled with the model's own."""
    max_pixels: int = MAX_PIXELS
    keep_stored: bool = False
    """Whether samples bring the picture to draw on; filled by the driver."""

    def kind_of_first(self, paths: Iterable[Path]) -> tuple[int, str]:
        """Channels and type of the samples, told by the first that is a picture.

        Raises:
            DataError: none of the first is.
        """
        return first_kind((str(path), partial(self.kind_of, path)) for path in paths)

    def kind_of(self, path: Path) -> tuple[int, str]:
        """Channels and type of a sample, told by the head of its file.

        Raises:
            RecordError: it is no picture.
            OSError: it cannot be read.
        """
        raise NotImplementedError

    def framed(
        self,
        stored: NDArray[Any],
        record_id: str,
        row: int,
        *,
        catalog: Catalog,
        label: int = UNKNOWN_LABEL,
        again: Callable[[], NDArray[Any]],
        framing: Framing | None = None,
    ) -> Sample:
        """Bring a picture to the model's size.

        Args:
            stored: (H, W) or (H, W, C).
            record_id: its id.
            row: position in the split.
            catalog: of the data set.
            label: index of its class.
            again: gives `stored` once more.
            framing: how it becomes that size; None = as the option says.

        Raises:
            RecordError: it is of another kind than those of the data set.
        """
        assert self.image_size is not None, "the driver fills in the model's input size"
        framing = framing or self.framing
        assert framing is not None, "the driver fills in the model's framing"
        _require_kind(stored, catalog)
        size = (stored.shape[0], stored.shape[1])
        image_CHW = frame(stored, self.image_size, framing)
        kept = None
        if self.keep_stored:
            region = placement(size, self.image_size, framing).region(size, self.image_size)
            kept = keep(_channels_first(stored), region, partial(_first_channels, again))
        return Sample(record_id, row, image_CHW, label, size, kept)


@dataclass(frozen=True, kw_only=True)
class Pictures(Framed):
    """Options of sources of picture files.

    Pictures of 8 bits are RGB or grey as asked for; those of more bits stay what they are, one
    channel of uint16 or float32.
    """

    mode: Mode = "RGB"
    """What pictures of 8 bits are read as: `RGB`, or `L` for grey."""
    exif_rotate: bool = False
    """Whether to turn pictures as their EXIF orientation says; timm and torchvision do not."""

    def kind_of(self, path: Path) -> tuple[int, str]:
        """Channels and type of a sample; see `Framed.kind_of`."""
        return self.kind_of_data(path.read_bytes())

    def kind_of_data(self, data: bytes) -> tuple[int, str]:
        """The same for the content of a picture file."""
        dtype = dtype_of_picture(data)
        return (3 if dtype == "uint8" and self.mode == "RGB" else 1), dtype

    def sample(
        self,
        data: bytes,
        record_id: str,
        row: int,
        *,
        catalog: Catalog,
        label: int = UNKNOWN_LABEL,
        again: Callable[[], bytes] | None = None,
    ) -> Sample:
        """Decode a picture and bring it to the model's size.

        Args:
            data: the whole file.
            record_id: its id.
            row: position in the split.
            catalog: of the data set.
            label: index of its class.
            again: reads the file once more; without it a large one is held until it is drawn on.

        Raises:
            RecordError: it is no picture, or of another kind than those of the data set.
            OSError: of Pillow, about the content.
        """
        held = data if again is None or len(data) <= HELD_BYTES else again
        return self.framed(
            self.decode(data),
            record_id,
            row,
            catalog=catalog,
            label=label,
            again=partial(self._decode_again, held),
        )

    def _decode_again(self, data: bytes | Callable[[], bytes]) -> NDArray[Any]:
        return self.decode(data if isinstance(data, bytes) else data())

    def decode(self, data: bytes) -> NDArray[Any]:
        """The picture in a file before it is resized; see `decode_picture`."""
        return decode_picture(
            data, mode=self.mode, max_pixels=self.max_pixels, exif_rotate=self.exif_rotate
        )


def _channels_first(stored: NDArray[Any]) -> Image:
    """(H, W) or (H, W, C) as (C, H, W), nothing copied."""
    return np.moveaxis(np.atleast_3d(stored), -1, 0)


def _first_channels(again: Callable[[], NDArray[Any]]) -> Image:
    return _channels_first(again())


def _require_kind(stored: NDArray[Any], catalog: Catalog) -> None:
    if str(stored.dtype) != catalog.dtype:
        raise RecordError(
            f"its pixels are {stored.dtype}, and those of the data set {catalog.dtype}: all "
            "pictures of a run have one type, by which their pixels are scaled"
        )
    if (channels := stored.shape[2] if stored.ndim == 3 else 1) != catalog.channels:
        raise RecordError(
            f"it has {channels} channels, and the pictures of the data set {catalog.channels}"
        )
