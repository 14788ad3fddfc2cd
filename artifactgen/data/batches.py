"""Batches of images, in which each record keeps its place whatever becomes of its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifactgen.data.reading import stack
from artifactgen.types import Failure, Sample


def places(samples: Sequence[Sample], failures: Sequence[Failure]) -> list[int]:
    """Where in a batch its samples are, between those that failed."""
    first = min([sample.row for sample in samples] + [failure.row for failure in failures])
    return [sample.row - first for sample in samples]


def in_their_places(samples: Sequence[Sample], failures: Sequence[Failure]) -> NDArray[Any] | None:
    """The images of a batch, (B, C, H, W), zeros for records that failed; None where all did.

    A batch of another size would be rounded otherwise, and a broken record thereby change the
    artifacts of those beside it.
    """
    if not samples:
        return None
    images = stack(samples)
    if not failures:
        return images
    batch_BCHW = np.zeros((len(samples) + len(failures), *images.shape[1:]), images.dtype)
    batch_BCHW[places(samples, failures)] = images
    return batch_BCHW
