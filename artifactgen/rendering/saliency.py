"""The pictures of a record's class activation maps: one PNG for each class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from artifactgen.errors import ConfigError, did_you_mean
from artifactgen.rendering.colormaps import DEFAULT_COLORMAP, lookup_table
from artifactgen.rendering.overlay import (
    OPACITY,
    Scale,
    heatmap,
    overlay_at,
    scale_each,
    to_levels,
)
from artifactgen.rendering.placing import BESIDE, Pixels, pixels_in
from artifactgen.rendering.png import encode_animation, encode_indexed_png, encode_png
from artifactgen.types import Region

ALL_FRAMES = "all"

Style = Literal["overlay", "heatmap"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SaliencyPictures:
    """How maps are drawn; the options of `GradCAM` say what each of these means."""

    style: Style = "overlay"
    scale: Scale = "map"
    colormap: str = DEFAULT_COLORMAP
    opacity: float = OPACITY
    frame: int | None = None
    """The only picture of a record to lay maps over; None: all, one after the other."""

    def draw(
        self,
        images: Sequence[NDArray[np.uint8]],
        cam_Khw: NDArray[Any],
        texts: Sequence[Mapping[str, str]],
        *,
        region: Region | None = None,
    ) -> Iterator[bytes]:
        """The PNG of each class, at the images' size.

        An overlay over several frames plays them; see `encode_animation`. A heat map is a picture
        of at most 256 colours, the same for all frames; of a part of the images it is grey around.

        Args:
            images: the record's pictures, uint8 RGB, as `display_images` returns them.
            cam_Khw: maps at the layer's resolution.
            texts: the text chunks of each class's picture.
            region: what of the images the maps are of; None = all.

        Raises:
            RecordError: a map holds NaN or infinity.
        """
        shown = images if self.frame is None else [images[self.frame]]
        height, width = shown[0].shape[:2]
        seen = pixels_in(region, (height, width))
        maps_HW = scale_each(cam_Khw, (height, width), scale=self.scale, region=region)
        for map_HW, text in zip(maps_HW, texts, strict=True):
            if self.style == "heatmap":
                yield self._heatmap(map_HW, (height, width), seen, text)
            else:
                yield encode_animation([self._overlay(i, map_HW, seen) for i in shown], text)

    def _heatmap(
        self,
        map_HW: NDArray[np.float32],
        size: tuple[int, int],
        seen: Pixels,
        text: Mapping[str, str],
    ) -> bytes:
        if map_HW.shape == size:
            return encode_indexed_png(to_levels(map_HW), lookup_table(self.colormap), text)
        picture = np.full((*size, 3), BESIDE, np.uint8)
        picture[seen] = heatmap(map_HW, colormap=self.colormap)
        return encode_png(picture, text)

    def _overlay(
        self, image_HW3: NDArray[np.uint8], map_HW: NDArray[np.float32], seen: Pixels
    ) -> NDArray[np.uint8]:
        return overlay_at(seen, image_HW3, map_HW, colormap=self.colormap, opacity=self.opacity)


def find_frame(wanted: str, frame_names: Sequence[str], *, option: str) -> int | None:
    """The position of a frame by its name; None for `all`.

    Raises:
        ConfigError: the records have no such frame.
    """
    if wanted == ALL_FRAMES:
        return None
    if wanted in frame_names:
        return frame_names.index(wanted)
    hint = did_you_mean(wanted, [ALL_FRAMES, *frame_names])
    raise ConfigError(f"{option}={wanted}: the records have no such frame. {hint}")
