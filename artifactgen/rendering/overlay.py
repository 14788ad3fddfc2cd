"""Class activation maps as pictures: scaled to the image, in colour, and laid over it."""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from artifactgen.errors import RecordError
from artifactgen.rendering.colormaps import DEFAULT_COLORMAP, lookup_table

Scale = Literal["map", "record", "absolute"]

OPACITY = 0.6

FLAT = 8 * float(np.finfo(np.float32).eps)
"""A map whose range is below this share of its largest value holds rounding errors only."""


def scale_cam(
    cam_hw: NDArray[Any], size: tuple[int, int], *, scale: Scale = "map"
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

    Raises:
        RecordError: a map holds NaN or infinity.
    """
    cam = np.maximum(np.asarray(cam_hw, dtype=np.float32), 0)
    if not np.isfinite(cam).all():
        raise RecordError("The class activation map holds NaN or infinity.")
    if scale == "absolute":
        return resize_maps(np.minimum(cam, 1), size)
    axes = (-2, -1) if scale == "map" else tuple(range(cam.ndim))
    return _stretch(resize_maps(_stretch(cam, axes), size), axes)


def resize_maps(
    maps_hw: NDArray[np.float32], size: tuple[int, int], *, interpolation: int = cv2.INTER_LINEAR
) -> NDArray[np.float32]:
    """Resize each map: (…, h, w) to (…, H, W), by OpenCV's interpolation."""
    *leading, height, width = maps_hw.shape
    resized = np.empty((*leading, *size), np.float32)
    for source, target in zip(
        maps_hw.reshape(-1, height, width), resized.reshape(-1, *size), strict=True
    ):
        cv2.resize(source, size[::-1], dst=target, interpolation=interpolation)
    return resized


def _stretch(maps: NDArray[np.float32], axes: tuple[int, ...]) -> NDArray[np.float32]:
    """Each range to [0, 1], with pytorch-grad-cam's 1e-7; flat ranges to zeros."""
    low = maps.min(axes, keepdims=True)
    high = maps.max(axes, keepdims=True)
    span = high - low
    return np.where(span > FLAT * high, (maps - low) / (np.float32(1e-7) + span), np.float32(0))


def to_levels(map01: NDArray[Any]) -> NDArray[np.uint8]:
    """The nearest of the 256 levels of a lookup table for values in [0, 1]; others are clipped."""
    levels: NDArray[np.uint8] = np.rint(np.clip(map01, 0, 1) * 255).astype(np.uint8)
    return levels


def heatmap(map01_HW: NDArray[Any], *, colormap: str = DEFAULT_COLORMAP) -> NDArray[np.uint8]:
    """The map in colour, (H, W, 3) uint8 RGB: its 256 levels through the colour map's table."""
    colors: NDArray[np.uint8] = lookup_table(colormap).take(to_levels(map01_HW), axis=0)
    return colors


def overlay(
    image_HW3: NDArray[np.uint8],
    map01_HW: NDArray[Any],
    *,
    colormap: str = DEFAULT_COLORMAP,
    opacity: float = OPACITY,
) -> NDArray[np.uint8]:
    """Lay the map over the image, (H, W, 3) uint8 RGB.

        pixel = (1 - a) image + a color(m),   a = opacity * min(1, 2 m)

    The colour fades in over the lower half of the map, so that cold areas show the image as it is
    and hot ones show how hot they are. Computed in integers, `a` to 1/256: equal bytes everywhere.

    Args:
        image_HW3: uint8 RGB.
        map01_HW: values in [0, 1]; taken in 256 levels.
        colormap: any name of matplotlib.
        opacity: weight of the colour where the map is hot, 0 to 1.
    """
    assert 0 <= opacity <= 1, opacity
    levels = to_levels(map01_HW)
    weight = np.rint(256 * opacity * np.minimum(1, np.arange(256) / 127.5)).astype(np.uint16)
    color = lookup_table(colormap) * weight[:, None] + np.uint16(128)
    pixels = image_HW3 * (256 - weight).take(levels)[..., None]
    pixels += color.take(levels, axis=0)
    pixels >>= 8
    return pixels.astype(np.uint8)
