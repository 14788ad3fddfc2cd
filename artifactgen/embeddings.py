"""The `.pt` file of embeddings: loaded by notebooks and scripts, written by the reducer."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from artifactgen.errors import RunError
from artifactgen.store.atomic import replacing


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


class EmbeddingsFile:
    """A `.pt` file of N embeddings that is filled row by row.

    The rows go to a file-backed tensor: the operating system holds as much of it in memory as is
    convenient, and `torch.save` streams it from there.
    """

    def __init__(self, scratch: Path, *, records: int, shape: Sequence[int]) -> None:
        self._embeddings = _map_zeros(scratch, records * math.prod(shape)).view(records, *shape)
        self._record_ids: list[str] = []
        self._labels: list[int] = []

    def append(self, record_id: str, embedding: NDArray[np.float32], label: int) -> None:
        """Add the next row."""
        self._embeddings[len(self._record_ids)] = torch.from_numpy(embedding)
        self._record_ids.append(record_id)
        self._labels.append(label)

    def save(
        self, path: Path, *, classes: Sequence[str], meta: Mapping[str, Any], temp_dir: Path
    ) -> None:
        """Write the file, read it back, and only then give it its name."""
        assert len(self._record_ids) == len(self._embeddings)
        labels = torch.tensor(self._labels, dtype=torch.int64)
        written = Embeddings(self._embeddings, self._record_ids, labels, list(classes), dict(meta))
        content = {field.name: getattr(written, field.name) for field in fields(written)}
        with replacing(path, temp_dir=temp_dir) as temp:
            with temp.open("wb") as file:  # by handle: by path, torch stores the file's name
                torch.save(content, file)
            _check_equal(temp, content)


def _map_zeros(scratch: Path, size: int) -> Tensor:
    """A float32 tensor that lives in a file without a name, gone when the tensor is dropped.

    Its space is taken at once: on a full disk that raises, where a write through the mapping
    would kill the process.
    """
    if not size:
        return torch.empty(0)
    scratch.parent.mkdir(parents=True, exist_ok=True)
    try:
        with scratch.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, size * torch.float32.itemsize)
        return torch.from_file(str(scratch), shared=True, size=size)
    finally:
        scratch.unlink()


def _check_equal(path: Path, content: Mapping[str, Any]) -> None:
    stored = torch.load(path, mmap=True, weights_only=True)
    same = all(torch.equal(stored[key], content[key]) for key in ("embeddings", "labels")) and all(
        stored[key] == content[key] for key in ("record_ids", "classes", "meta")
    )
    if not same:
        raise RunError(f"{path} reads back other than it was written: check this disk.")
