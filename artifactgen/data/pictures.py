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
from artifactgen.types import UNKNOWN_LABEL, Framing, Image, Sample, Stored

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


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """Options of sources of picture files.

    Pictures of 8 bits are RGB or grey as asked for; those of more bits stay what they are, one
    channel of uint16 or float32, and all of a data set are of one kind: the first tells.
    """

    image_size: tuple[int, int] | None = None
    framing: Framing | None = None
    """How pictures become that size; filled with the model's own."""
    mode: Mode = "RGB"
    """What pictures of 8 bits are read as: `RGB`, or `L` for grey."""
    exif_rotate: bool = False
    """Whether to turn pictures as their EXIF orientation says; timm and torchvision do not."""
    max_pixels: int = MAX_PIXELS
    keep_stored: bool = False
    """Whether samples bring the picture to draw on; filled by the driver."""

    def kind_of_first(self, paths: Iterable[Path]) -> tuple[int, str]:
        """Channels and type of the samples, told by the first that is a picture.

        Raises:
            DataError: none of the first is.
        """
        reasons = []
        for path in islice(paths, _TRIED):
            try:
                dtype = dtype_of_picture(path.read_bytes())
            except (OSError, RecordError) as error:
                if isinstance(error, OSError) and not is_of_the_file(error):
                    raise
                reasons.append(f"{path}: {error}")
            else:
                return (3 if dtype == "uint8" and self.mode == "RGB" else 1), dtype
        raise DataError("\n  ".join(["None of the first pictures can be read:", *reasons[:5]]))

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
        assert self.image_size is not None, "the driver fills in the model's input size"
        assert self.framing is not None, "the driver fills in the model's framing"
        stored = self._decode(data)
        _require_kind(stored, catalog)
        height, width = stored.shape[:2]
        image_CHW = frame(stored, self.image_size, self.framing)
        kept = None
        if self.keep_stored:
            held = data if again is None or len(data) <= HELD_BYTES else again
            kept = self._keep(stored, held)
        return Sample(record_id, row, image_CHW, label, (height, width), kept)

    def _keep(self, stored: NDArray[Any], data: bytes | Callable[[], bytes]) -> Stored:
        assert self.image_size is not None
        assert self.framing is not None
        size = stored.shape[:2]
        region = placement(size, self.image_size, self.framing).region(size, self.image_size)
        return keep(_channels_first(stored), region, partial(self._decode_again, data))

    def _decode_again(self, data: bytes | Callable[[], bytes]) -> Image:
        return _channels_first(self._decode(data if isinstance(data, bytes) else data()))

    def _decode(self, data: bytes) -> NDArray[Any]:
        return decode_picture(
            data, mode=self.mode, max_pixels=self.max_pixels, exif_rotate=self.exif_rotate
        )


def _channels_first(stored: NDArray[Any]) -> Image:
    """(H, W) or (H, W, C) as (C, H, W), nothing copied."""
    return np.moveaxis(np.atleast_3d(stored), -1, 0)


def _require_kind(stored: NDArray[Any], catalog: Catalog) -> None:
    if str(stored.dtype) != catalog.dtype:
        raise RecordError(
            f"its pixels are {stored.dtype}, and those of the data set {catalog.dtype}: all "
            "pictures of a run have one type, by which their pixels are scaled"
        )
