"""Record ids of any text, through every file that the program makes of them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from helpers.strategies import fuzzed, ids_of_a_data_set, record_ids, scratch
from hypothesis import given

from artifactgen.plan import Scope, cut
from artifactgen.reducer import Recipe, merge
from artifactgen.store.atomic import write_bytes
from artifactgen.store.layout import Layout, safe_name
from artifactgen.store.ledger import commit, committed, committed_file
from artifactgen.store.results import recorded_failures
from artifactgen.store.shardfile import Picture, ShardRows, write_shard
from artifactgen.store.text import storable
from artifactgen.types import Failure, Receipt, Shard

PRINT = "f" * 64
RECIPE = Recipe((2,), ("a", "b"), {}, {"embeddings": "ok", "gradcam": "ok"}, PRINT)


@given(record_ids(), record_ids())
@fuzzed(2000)
def test_a_name_is_plain_and_another_ids_is_another(one: str, other: str) -> None:
    names = safe_name(one), safe_name(other)
    assert (names[0] == names[1]) == (one == other)
    for name in names:
        assert len(name.encode("ascii")) <= 200
        assert name not in ("", ".", "..")
        assert Path(name).name == name
        assert unicodedata.normalize("NFKC", name) == name


def commit_all(layout: Layout, shard: Shard, ids: list[str]) -> Receipt:
    """A shard as a worker leaves it: every record has a picture, the last one failed."""
    pictures = []
    for name in ids[:-1]:
        path = f"gradcam/{safe_name(name)}/class_0.png"
        data = name.encode("utf-8", "surrogatepass") + b"."
        write_bytes(layout.root / path, data, temp_dir=layout.temp, durable=False)
        pictures.append({"gradcam": {path: Picture.of(data)}})
    good = len(pictures)
    rows = np.arange(good)
    columns = {"rows": rows, "labels": rows % 2}
    if good:
        columns["embeddings"] = np.stack([rows, -rows], 1).astype(np.float32)
    path = layout.scope(shard.split).shard(shard)
    write_shard(path, ShardRows(ids[:-1], pictures, columns), temp_dir=layout.temp)
    failure = Failure(ids[-1], shard.split, good, "read", f"{ids[-1]}: cut short")
    receipt = Receipt(
        shard, good, "host", "cpu", (failure,), (committed_file(layout.root, path),), pictures=good
    )
    commit(layout, shard.split, receipt, fingerprint=PRINT)
    return receipt


@given(ids_of_a_data_set())
@fuzzed(60)
def test_ids_through_the_whole_store(ids: list[str]) -> None:
    with scratch() as folder:
        layout = Layout(folder / "deep" / "out")
        (shard,) = cut("test", len(ids), batch_size=len(ids))
        receipt = commit_all(layout, shard, ids)
        same = {"fingerprint": PRINT, "device": "cpu"}
        assert committed(layout, "test", [shard], **same) == {shard: receipt}
        merge(layout, Scope("test", (shard,)), [receipt], RECIPE)
        outside = [path for path in folder.rglob("*") if not path.is_relative_to(layout.root)]
        assert outside == [folder / "deep"]
        rows = pq.read_table(layout.scope("test").manifest).to_pylist()
        assert [row["record_id"] for row in rows] == [storable(name) for name in ids]
        for name, row in zip(ids[:-1], rows, strict=False):
            (path,) = row["gradcam_files"]
            content = (layout.root / path).read_bytes()
            assert content.decode("utf-8", "surrogatepass") == f"{name}."
        (failed,) = recorded_failures(layout, "test")
        assert failed.record_id == ids[-1]
        stored = torch.load(layout.embeddings("test"), weights_only=True)
        assert stored["record_ids"] == ids[:-1]
