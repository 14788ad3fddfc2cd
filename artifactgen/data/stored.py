"""Pictures as they are stored, kept for drawing on: in memory, or read once more.

Some batches of samples wait in memory at any time: read ahead, computed, drawn. Of large pictures
they would take gigabytes; so these are read again by the thread that draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from artifactgen.data.base import is_of_the_file
from artifactgen.errors import RecordError
from artifactgen.types import Image, Region, Stored

HELD_BYTES = 1 << 20
"""Of what waits in memory for one record."""


def keep(image_CHW: Image, region: Region, again: Callable[[], Image]) -> Stored:
    """A picture for drawing: held where it is small, else read again.

    Args:
        image_CHW: the picture.
        region: what of it is the sample's image.
        again: gives the picture once more.
    """
    if image_CHW.nbytes > HELD_BYTES:
        return Stored(region, partial(_read, again))
    own = image_CHW.copy(order="K")  # a part of a large block would hold all of it
    return Stored(region, partial(_same, own))


def whole(size: Sequence[int]) -> Region:
    """All of a picture of `size` = (H, W)."""
    return Region(0, 0, size[0], size[1])


def _same(image_CHW: Image) -> Image:
    return image_CHW


def _read(again: Callable[[], Image]) -> Image:
    try:
        return again()
    except OSError as error:
        if is_of_the_file(error):
            raise RecordError(f"could not be read again, for drawing: {error}") from error
        raise
