"""Class activation maps as pictures: scaled to the image, in colour, and laid over it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from artifactgen.errors import RecordError
from artifactgen.rendering.colormaps import DEFAULT_COLORMAP, lookup_table
from artifactgen.rendering.placing import Pixels, covers, outline, place_maps
from artifactgen.types import Region

Scale = Literal["map", "record", "absolute"]
_Bounds = tuple[NDArray[np.float32], NDArray[np.float32]]

OPACITY = 0.6

FLAT = 8 * float(np.finfo(np.float32).eps)
"""A map whose range is below this share of its largest value holds rounding errors only."""


def scale_cam(
    cam_hw: NDArray[Any],
    size: tuple[int, int],
    *,
    scale: Scale = "map",
    region: Region | None = None,
) -> NDArray[np.float32]:
    """Bring maps to the image's size and to [0, 1]: (…, h, w) to (…, H, W) float32.

    `map` is pytorch-grad-cam's own scaling of each map: negative values to zero, `scale_cam_image`
    to (W, H) as in `compute_cam_per_layer`, and again as in `aggregate_multi_layers`. `record` does
    the same with one range over all maps given, so that the classes of a record compare. `absolute`
    takes the values as they are, clipped to [0, 1], so that records compare.

    A flat map comes out as zeros. pytorch-grad-cam agrees where it is flat to the last bit, and
    otherwise stretches the rounding errors over the whole range.

    Args:
        cam_hw: maps at the layer's resolution, any number of leading dimensions.
        size: (H, W) of the image in pixels.
        scale: what has a range of its own.
        region: the part of the image that the maps are of, see `resize_maps`; None = all.

    Raises:
        RecordError: a map holds NaN or infinity.
    """
    cam = _positive(cam_hw)
    if scale == "absolute":
        return resize_maps(np.minimum(cam, 1), size, region=region)
    axes = (-2, -1) if scale == "map" else tuple(range(cam.ndim))
    resized = resize_maps(_stretch(cam, *_range(cam, axes)), size, region=region)
    return _stretch(resized, *_range(resized, axes))


def scale_each(
    cam_Khw: NDArray[Any],
    size: tuple[int, int],
    *,
    scale: Scale = "map",
    region: Region | None = None,
) -> Iterator[NDArray[np.float32]]:
    """The maps of `scale_cam`, to the bit, (H, W) each: of K, one exists at the image's size.

    Raises:
        RecordError: a map holds NaN or infinity; before the first of them.
    """
    for cam_hw in cam_Khw:
        _positive(cam_hw)
    if scale == "record":
        yield from _scale_together(cam_Khw, size, region)
    else:
        yield from (scale_cam(cam_hw, size, scale=scale, region=region) for cam_hw in cam_Khw)


def _scale_together(
    cam_Khw: NDArray[Any], size: tuple[int, int], region: Region | None
) -> Iterator[NDArray[np.float32]]:
    """One range over all maps: resized once to find it, and again rather than kept."""
    low, high = _range_of_all(map(_positive, cam_Khw))

    def resized() -> Iterator[NDArray[np.float32]]:
        for cam_hw in cam_Khw:
            yield resize_maps(_stretch(_positive(cam_hw), low, high), size, region=region)

    low_resized, high_resized = _range_of_all(resized())
    for map_HW in resized():
        yield _stretch(map_HW, low_resized, high_resized)


def _positive(cam_hw: NDArray[Any]) -> NDArray[np.float32]:
    """Maps without their negative values, float32."""
    cam: NDArray[np.float32] = np.maximum(np.asarray(cam_hw, dtype=np.float32), 0)
    if not np.isfinite(cam).all():
        raise RecordError("The class activation map holds NaN or infinity.")
    return cam


def resize_maps(
    maps_hw: NDArray[np.float32],
    size: tuple[int, int],
    *,
    interpolation: int = cv2.INTER_LINEAR,
    region: Region | None = None,
) -> NDArray[np.float32]:
    """Resize each map: (…, h, w) to (…, H, W), by OpenCV's interpolation.

    Args:
        maps_hw: of a picture, or of a region of it.
        size: (H, W) of the picture.
        interpolation: OpenCV's; of a region with edges within pixels, linear.
        region: the part that the maps are of: then they come out at the size of `pixels_in` it.
    """
    if region is not None and not covers(region, size):
        return place_maps(maps_hw, size, region)
    *leading, height, width = maps_hw.shape
    resized = np.empty((*leading, *size), np.float32)
    for source, target in zip(
        maps_hw.reshape(-1, height, width), resized.reshape(-1, *size), strict=True
    ):
        cv2.resize(source, size[::-1], dst=target, interpolation=interpolation)
    return resized


def _range(maps: NDArray[np.float32], axes: tuple[int, ...]) -> _Bounds:
    """The lowest and the highest value over the axes, which are kept."""
    return maps.min(axes, keepdims=True), maps.max(axes, keepdims=True)


def _range_of_all(maps_hw: Iterable[NDArray[np.float32]]) -> _Bounds:
    """The lowest and the highest value of maps that come one at a time, (1, 1) each."""
    lows, highs = zip(*(_range(map_hw, (-2, -1)) for map_hw in maps_hw), strict=True)
    return np.minimum.reduce(lows), np.maximum.reduce(highs)


def _stretch(
    maps: NDArray[np.float32], low: NDArray[np.float32], high: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The range to [0, 1], with pytorch-grad-cam's 1e-7; a flat range to zeros."""
    span = high - low
    divisor = np.where(span > FLAT * high, np.float32(1e-7) + span, np.float32(np.inf))
    stretched: NDArray[np.float32] = maps - low
    stretched /= divisor
    return stretched


def to_levels(map01: NDArray[np.float32]) -> NDArray[np.uint8]:
    """The nearest of the 256 levels of a lookup table for values in [0, 1]; others are clipped."""
    clipped = np.clip(map01, 0, 1)
    levels: NDArray[np.uint8] = cv2.convertScaleAbs(clipped, alpha=255)  # half to even, as rint
    return levels


def heatmap(
    map01_HW: NDArray[np.float32], *, colormap: str = DEFAULT_COLORMAP
) -> NDArray[np.uint8]:
    """The map in colour, (H, W, 3) uint8 RGB: its 256 levels through the colour map's table."""
    return _look_up(lookup_table(colormap), to_levels(map01_HW))


def overlay(
    image_HW3: NDArray[np.uint8],
    map01_HW: NDArray[np.float32],
    *,
    colormap: str = DEFAULT_COLORMAP,
    opacity: float = OPACITY,
) -> NDArray[np.uint8]:
    """Lay the map over the image, (H, W, 3) uint8 RGB.

        pixel = (1 - a) image + a color(m),   a = opacity * min(1, 2 m)

    The colour fades in over the lower half of the map, so that cold areas show the image as it is
    and hot ones show how hot they are. Both terms are rounded to 1/255 before they are added.

    Args:
        image_HW3: uint8 RGB.
        map01_HW: values in [0, 1]; taken in 256 levels.
        colormap: any name of matplotlib.
        opacity: weight of the colour where the map is hot, 0 to 1.
    """
    assert 0 <= opacity <= 1, opacity
    kept, color = _blend_tables(colormap, opacity)
    levels = to_levels(map01_HW)
    # No product of two bytes lies halfway between multiples of 255, so that float32 rounds the
    # quotient alike on every machine.
    faded = cv2.multiply(image_HW3, _look_up(kept, levels), scale=1 / 255)
    pixels: NDArray[np.uint8] = cv2.add(faded, _look_up(color, levels), dst=faded)
    return pixels


def overlay_at(
    seen: Pixels,
    image_HW3: NDArray[np.uint8],
    map01_HW: NDArray[np.float32],
    *,
    colormap: str = DEFAULT_COLORMAP,
    opacity: float = OPACITY,
) -> NDArray[np.uint8]:
    """Lay a map over some pixels of an image, with a line around them; the rest stays plain."""
    colored = overlay(image_HW3[seen], map01_HW, colormap=colormap, opacity=opacity)
    if colored.shape == image_HW3.shape:
        return colored
    picture = image_HW3.copy()
    picture[seen] = colored
    outline(picture, seen)
    return picture


@cache
def _blend_tables(colormap: str, opacity: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Weight of the image and weighed colour for each level of a map, (256, 3) uint8 each."""
    alpha = np.rint(255 * opacity * np.minimum(1, np.arange(256) / 127.5))[:, None] / 255
    kept = np.rint(255 * (1 - alpha)).astype(np.uint8).repeat(3, axis=1)
    color = np.rint(lookup_table(colormap) * alpha).astype(np.uint8)
    return kept, color


def _look_up(table_256x3: NDArray[np.uint8], levels_HW: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The table's row for each level, (H, W, 3)."""
    rows: NDArray[np.uint8] = cv2.applyColorMap(levels_HW, table_256x3[:, None])
    return rows
