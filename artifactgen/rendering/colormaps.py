"""Colour maps as lookup tables."""

from __future__ import annotations

from functools import cache

import matplotlib
import numpy as np
from numpy.typing import NDArray

from artifactgen.errors import ConfigError, did_you_mean

DEFAULT_COLORMAP = "inferno"
"""Lightness grows evenly with the value, for the colour-blind and in grey print as well, and
its hues stand out from the greys of an image. `jet` and `turbo` are more vivid, but dark where they
are hottest, and show edges where the values have none."""


@cache
def lookup_table(name: str) -> NDArray[np.uint8]:
    """The 256 colours of a matplotlib colour map, (256, 3) uint8 RGB, read-only.

    Raises:
        ConfigError: matplotlib has no colour map of that name.
    """
    if name not in matplotlib.colormaps:
        hint = did_you_mean(name, matplotlib.colormaps)
        raise ConfigError(f"matplotlib has no colour map named {name!r}. {hint}")
    colors = matplotlib.colormaps[name](np.linspace(0, 1, 256))[:, :3]
    table: NDArray[np.uint8] = np.rint(colors * 255).astype(np.uint8)
    table.setflags(write=False)
    return table
