"""Committed shards of random rows, as a worker leaves them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from artifactgen.store.layout import Layout
from artifactgen.store.ledger import commit, committed_file
from artifactgen.store.shardfile import Picture, ShardRows, write_shard
from artifactgen.types import Failure, Receipt, Shard

FINGERPRINT = "f" * 64
WIDTH = 5
PICTURE = b"0123456789"
CommitShard = Callable[..., Receipt]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "out")


@pytest.fixture
def commit_shard() -> CommitShard:
    """Write and commit a shard whose row r holds values that follow from (split, r) alone."""

    def write(
        layout: Layout,
        shard: Shard,
        *,
        broken_rows: Sequence[int] = (),
        name: Callable[[int], str] = "record {}".format,
        scope: str | None = None,
        **receipt: Any,
    ) -> Receipt:
        scope = scope or shard.split
        rows = [row for row in range(shard.start, shard.stop) if row not in broken_rows]
        path = layout.scope(scope).shard(shard)
        columns = {"rows": np.array(rows, np.int64), "labels": np.array(rows, np.int64) % 3}
        if rows:
            columns["embeddings"] = np.stack([embedding(row) for row in rows])
            columns["predictions"] = columns["rows"] % 2
        for row in rows:
            picture = layout.root / f"gradcam/{row}/class_0.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            picture.write_bytes(PICTURE)
        pictures = [
            {"gradcam": {f"gradcam/{row}/class_0.png": Picture.of(PICTURE)}} for row in rows
        ]
        shard_rows = ShardRows([name(row) for row in rows], pictures, columns)
        write_shard(path, shard_rows, temp_dir=layout.temp)
        done = Receipt(
            shard,
            records=len(rows),
            **{"host": "node1", "device": "cpu (AVX2)", **receipt},
            failures=tuple(
                Failure(name(row), shard.split, row, "read", "cut short")
                for row in broken_rows
                if shard.start <= row < shard.stop
            ),
            files=(committed_file(layout.root, path),),
            pictures=len(rows),
            picture_bytes=10 * len(rows),
            seconds={"read": 0.5, "compute": 1.0},
        )
        commit(layout, scope, done, fingerprint=FINGERPRINT)
        return done

    return write


def embedding(row: int) -> np.ndarray:
    return np.random.default_rng(row).standard_normal(WIDTH, dtype=np.float32)
