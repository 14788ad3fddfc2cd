"""Where the model's input lies in a larger picture, and maps at that place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from artifactgen.rendering.image import display_images, resize_picture
from artifactgen.types import Region, Sample

BESIDE = 238
"""Grey of what the model did not see, where there is no picture to show."""
_LINE_SHARE = 1 / 300
"""Width of an outline as a share of the picture's shorter side."""

Pixels = tuple[slice, slice]


@dataclass(frozen=True, slots=True)
class Canvas:
    """The pictures of a record that maps are laid over."""

    images: Sequence[NDArray[np.uint8]]
    """(H, W, 3) each, of one size: the image, or one for each frame."""
    region: Region | None = None
    """What of them the model saw; None = all."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the pictures."""
        height, width = self.images[0].shape[:2]
        return height, width

    @property
    def text(self) -> dict[str, str]:
        """What a picture says of it; nothing where the model saw all."""
        if self.region is None:
            return {}
        r = self.region
        return {
            "Canvas": f"source, {self.size[0]} x {self.size[1]}; the model saw {r.height:.1f} x "
            f"{r.width:.1f} from row {r.top:.1f}, column {r.left:.1f}"
        }

    def region_at(self, size: tuple[int, int]) -> Region | None:
        """The region, once the pictures are resized to (H, W)."""
        rows, columns = (new / old for new, old in zip(size, self.size, strict=True))
        return None if self.region is None else self.region.scaled(rows, columns)

    def resized(self, size: tuple[int, int]) -> Canvas:
        """The same at another (H, W)."""
        images = [resize_picture(image, size) for image in self.images]
        return Canvas(images, self.region_at(size))


def canvas_of(
    sample: Sample,
    frame_names: Sequence[str] = (),
    *,
    max_value: int | None = None,
    longest_px: int | None = None,
) -> Canvas:
    """The stored picture where the sample brings it, else its image.

    Args:
        sample: a record.
        frame_names: see `display_images`.
        max_value: likewise.
        longest_px: a stored picture with a longer side is reduced to it.

    Raises:
        RecordError: the stored picture cannot be read any more.
    """
    stored = sample.stored
    if stored is None:
        return Canvas(display_images(sample.image_CHW, frame_names, max_value=max_value))
    images = display_images(stored.read(), frame_names, max_value=max_value)
    is_whole = covers(stored.region, images[0].shape[:2])
    canvas = Canvas(images, None if is_whole else stored.region)
    scale = (longest_px or math.inf) / max(canvas.size)
    if scale >= 1:
        return canvas
    height, width = (max(1, round(side * scale)) for side in canvas.size)
    return canvas.resized((height, width))


def covers(region: Region, size: Sequence[int]) -> bool:
    """Whether a region is the whole of a picture of `size` = (H, W), and no more."""
    return (region.top, region.left) == (0, 0) and all(
        math.isclose(have, side)
        for have, side in zip((region.height, region.width), size, strict=True)
    )


def pixels_in(region: Region | None, size: Sequence[int]) -> Pixels:
    """The pixels of a picture of `size` = (H, W) whose centres lie in a region; at least one."""
    region = region or Region(0, 0, *size)
    rows = _inside(region.top, region.height, size[0])
    return rows, _inside(region.left, region.width, size[1])


def _inside(start: float, length: float, side: int) -> slice:
    first, stop = (math.ceil(edge - 0.5) for edge in (start, start + length))
    if max(first, 0) >= min(stop, side):  # narrower than a pixel, between two centres
        first = min(max(math.floor(start + length / 2), 0), side - 1)
        stop = first + 1
    return slice(max(first, 0), min(stop, side))


def place_maps(
    maps_hw: NDArray[np.float32], size: tuple[int, int], region: Region
) -> NDArray[np.float32]:
    """Maps of a region at the centres of the picture's pixels in it, linearly interpolated.

    As OpenCV's linear resizing, of which this is the form for edges that lie within pixels: values
    stand at the centres of a map's cells, and those at its edges reach to the edge of the region.

    Args:
        maps_hw: (…, h, w).
        size: (H, W) of the picture.
        region: what the maps are of.

    Returns:
        (…, H', W') for the pixels of `pixels_in`.
    """
    rows, columns = pixels_in(region, size)
    left, right, share = _taps(columns, region.left, region.width, maps_hw.shape[-1])
    wide = maps_hw[..., left] * (1 - share) + maps_hw[..., right] * share
    above, below, share = _taps(rows, region.top, region.height, maps_hw.shape[-2])
    placed = wide[..., above, :] * (1 - share)[:, None]
    placed += wide[..., below, :] * share[:, None]
    return placed


def _taps(
    pixels: slice, start: float, length: float, cells: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """For each pixel of an axis the two cells that it lies between, and the share of the second."""
    centres = np.arange(pixels.start, pixels.stop) + 0.5
    position = ((centres - start) / length * cells - 0.5).clip(0, cells - 1)
    first = np.floor(position).astype(np.intp)
    return first, np.minimum(first + 1, cells - 1), (position - first).astype(np.float32)


def outline(image_HW3: NDArray[np.uint8], seen: Pixels) -> None:
    """Draw a line around the pixels that the model saw, outside of them; changes the image.

    White and black side by side, which stand out on any picture. Where the pixels reach an edge of
    the picture there is none: nothing was cut away there.
    """
    line = max(1, round(min(image_HW3.shape[:2]) * _LINE_SHARE))
    inside = image_HW3[seen].copy()
    for width, value in ((2 * line, 0), (line, 255)):
        image_HW3[_grown(seen[0], width), _grown(seen[1], width)] = value
    image_HW3[seen] = inside


def _grown(pixels: slice, by: int) -> slice:
    return slice(max(pixels.start - by, 0), pixels.stop + by)
