"""Grey values of any unit as pixels in [0, 1]: by a window, or by their own range.

========================  ====================================================================
where                     pixels are
========================  ====================================================================
`data.window=[low,high]`  (value - low) / (high - low), cut off below 0 and above 1
a DICOM file's window     the first of its own, as its VOI LUT function says:
                          https://dicom.nema.org/medical/dicom/current/output/chtml/part03/sect_C.11.2.html
neither                   each picture, and each frame, from its own least to its own largest value
DICOM, MONOCHROME1        any of these, then black and white are exchanged
========================  ====================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifactgen.data.image import scale_to_unit
from artifactgen.errors import RecordError

Window = tuple[float, float]
"""(low, high): values of black and of white."""


@dataclass(frozen=True, slots=True)
class Shading:
    """What a file says of how its values are shown."""

    center: float | None = None
    """Of its window; None = it has none."""
    width: float = 1.0
    function: str = "LINEAR"
    """VOI LUT function of DICOM: LINEAR, LINEAR_EXACT or SIGMOID."""
    inverted: bool = False
    """Whether its smallest value is white."""


def to_unit(
    values_CHW: NDArray[Any], window: Window | None, shading: Shading
) -> NDArray[np.float32]:
    """Scale values to [0, 1].

    Args:
        values_CHW: of any unit.
        window: as asked for; None = as the file says, else their own range.
        shading: what the file says.

    Raises:
        RecordError: NaN or Inf among the values, or a window in the file that is none.
    """
    if not np.isfinite(values_CHW).all():
        raise RecordError("NaN or Inf among the pixels")
    if window is not None:
        unit_CHW = _between(values_CHW, *window)
    elif shading.center is not None:
        unit_CHW = _shaded(values_CHW.astype(np.float64), shading)
    else:
        unit_CHW = scale_to_unit(values_CHW)
    return 1 - unit_CHW if shading.inverted else unit_CHW


def _between(values_CHW: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    unit: NDArray[Any] = (values_CHW.astype(np.float64) - low) / (high - low)
    return unit.clip(0, 1).astype(np.float32)


def _shaded(values_CHW: NDArray[np.float64], shading: Shading) -> NDArray[np.float32]:
    assert shading.center is not None
    center, width = shading.center, shading.width
    if shading.function == "SIGMOID" and width > 0:
        unit: NDArray[Any] = 1 / (1 + np.exp(-4 * (values_CHW - center) / width))
        return unit.astype(np.float32)
    if shading.function == "LINEAR" and width >= 1:
        center, width = center - 0.5, width - 1
    elif shading.function != "LINEAR_EXACT" or width <= 0:
        raise RecordError(
            f"a window of width {width:g} ({shading.function}) shows nothing; set data.window"
        )
    if width == 0:
        return (values_CHW > center).astype(np.float32)
    return _between(values_CHW, center - width / 2, center + width / 2)
