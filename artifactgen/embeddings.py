"""Loading what the program made, for notebooks and scripts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, repr=False)
class Embeddings:
    """The embeddings of a split."""

    embeddings: Tensor
    """(N, D) float32."""
    record_ids: list[str]
    labels: Tensor
    """(N,) int64, -1 where unknown."""
    classes: list[str]
    """Names of the labels."""
    meta: Mapping[str, Any]
    """Model, pooling, precision, checkpoint."""

    def __repr__(self) -> str:
        shape = " × ".join(map(str, self.embeddings.shape))
        return f"<Embeddings {shape}, {len(self.classes)} classes, {self.meta.get('model')}>"

    def __len__(self) -> int:
        return len(self.record_ids)

    def as_dict(self) -> dict[str, Tensor]:
        """{record id: (D,) tensor}."""
        return dict(zip(self.record_ids, self.embeddings, strict=True))


def load_embeddings(path: str | Path) -> Embeddings:
    """Load a `.pt` file of embeddings; it is mapped into memory, not read.

    Raises:
        FileNotFoundError: there is no such file.
        TypeError: the file holds something else.
    """
    return Embeddings(**torch.load(path, mmap=True, weights_only=True))
