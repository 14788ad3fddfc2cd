"""Labels and predictions of merged records, read from a manifest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

_COLUMNS = ["label", "prediction"]


def read_predictions(manifest: Path) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Labels and predictions, int64 (n,) each, of the records that have both.

    One row group after another: memory does not grow with the manifest.
    """
    with pq.ParquetFile(manifest) as file:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=_COLUMNS)
            known = pc.and_(pc.is_valid(table["label"]), pc.is_valid(table["prediction"]))
            labels, predictions = (table.filter(known)[name].to_numpy() for name in _COLUMNS)
            yield labels, predictions
