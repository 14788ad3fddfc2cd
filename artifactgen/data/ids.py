"""Whether the ids of millions of records are unique, at eight bytes for each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from artifactgen.data.texts import decoded, equal_ones, hashes_of, normal


def repeated(every: Callable[[], Iterable[Any]], hashes: Sequence[NDArray[np.int64]]) -> list[str]:
    """Ids that occur more than once, in the order of their first occurrence; usually none.

    Two that look the same are the same, whichever way their accents are coded.

    Args:
        every: gives all ids, in arrays of `TEXT`; called only where hashes are equal.
        hashes: of all ids, see `hashes_of`.
    """
    suspects = equal_ones(hashes)
    if not len(suspects):
        return []
    counts: Counter[str] = Counter()
    for ids in every():
        suspected = ids.filter(pa.array(np.isin(hashes_of(ids), suspects)))
        counts.update(normal(decoded(name)) for name in suspected.to_pylist())
    return [name for name, count in counts.items() if count > 1]
