from __future__ import annotations

import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from artifactgen.embeddings import EmbeddingsFile
from artifactgen.errors import RunError
from artifactgen.plan import Scope, cut
from artifactgen.reducer import Recipe, merge
from artifactgen.store.layout import Layout
from artifactgen.store.ledger import committed
from artifactgen.store.manifest import concatenate
from artifactgen.store.results import merged, recorded_failures
from artifactgen.types import Receipt, Shard

WIDTH = 5
RECIPE = Recipe(
    embedding_shape=(WIDTH,),
    classes=("NOR", "é\ud800"),
    meta={"model": "test_vit", "image_size": [160, 160], "pooling": "auto"},
    status={"embeddings": "ok", "gradcam": "ok", "attention": "off"},
    fingerprint="f" * 64,
)
SHARDS = cut("train", 150, batch_size=8)
SCOPE = Scope("train", SHARDS)
BROKEN = [0, 5, 99, 149]


def embeddings(rows: list[int]) -> torch.Tensor:
    drawn = [np.random.default_rng(row).standard_normal(WIDTH, dtype=np.float32) for row in rows]
    return torch.from_numpy(np.stack(drawn))


@pytest.fixture
def receipts(layout: Layout, commit_shard) -> list[Receipt]:
    """Committed in another order than that of the plan."""
    done = {shard: commit_shard(layout, shard, broken_rows=BROKEN) for shard in SHARDS[::-1]}
    return [done[shard] for shard in SHARDS]


def load(path: Path) -> dict:
    by_map = torch.load(path, mmap=True, weights_only=True)
    in_memory = torch.load(path, weights_only=True)
    assert torch.equal(by_map["embeddings"], in_memory["embeddings"])
    assert zipfile.ZipFile(path).testzip() is None
    return in_memory


def test_the_file_holds_the_rows_of_all_shards_in_order(layout, receipts) -> None:
    merge(layout, SCOPE, receipts, RECIPE)
    stored = load(layout.embeddings("train"))
    rows = [row for row in range(150) if row not in BROKEN]
    assert torch.equal(stored["embeddings"], embeddings(rows))
    assert stored["embeddings"].dtype == torch.float32
    assert stored["record_ids"] == [f"record {row}" for row in rows]
    assert torch.equal(stored["labels"], torch.tensor(rows) % 3)
    assert stored["labels"].dtype == torch.int64
    assert stored["classes"] == list(RECIPE.classes)
    assert stored["meta"] == dict(RECIPE.meta)
    assert set(stored) == {"embeddings", "record_ids", "labels", "classes", "meta"}


def test_the_manifest_lists_failures_in_their_places(layout, receipts) -> None:
    merge(layout, SCOPE, receipts, RECIPE)
    rows = pq.read_table(layout.scope("train").manifest).to_pylist()
    assert [row["record_id"] for row in rows] == [f"record {row}" for row in range(150)]
    assert [row["position"] for row in rows] == list(range(150))
    pt_ids = load(layout.embeddings("train"))["record_ids"]
    for row in rows:
        failed = row["position"] in BROKEN
        assert (row["row"] is None) == failed
        assert row["embeddings"] == row["gradcam"] == ("failed" if failed else "ok")
        assert row["attention"] == "off"
        assert row["error"] == ("read: cut short" if failed else None)
        assert row["prediction"] == (None if failed else row["position"] % 2)
        picture = [f"gradcam/{row['position']}/class_0.png"]
        assert row["gradcam_files"] == ([] if failed else picture)
        assert failed or pt_ids[row["row"]] == row["record_id"]
    assert [row["gradcam"] for row in rows].count("failed") == 4


def test_failures_are_kept_in_the_order_of_the_data(layout, receipts) -> None:
    merge(layout, SCOPE, receipts, RECIPE)
    for entry in layout.scope("train").ledger.glob("*.json"):
        entry.write_bytes(b"")  # damaged later, it does not matter any more
    failures = recorded_failures(layout, "train")
    assert [failure.row for failure in failures] == sorted(BROKEN)
    assert failures == [failure for receipt in receipts for failure in receipt.failures]


def test_merging_again_or_elsewhere_gives_the_same_bytes(tmp_path, commit_shard) -> None:
    contents = []
    for root in (tmp_path / "a", tmp_path / "b" / "longer name", tmp_path / "a"):
        layout = Layout(root)
        done = [commit_shard(layout, shard, broken_rows=BROKEN) for shard in SHARDS]
        merge(layout, SCOPE, done, RECIPE)
        files = (layout.embeddings("train"), layout.scope("train").manifest)
        contents.append([path.read_bytes() for path in files])
        assert not list(layout.temp.iterdir())
        assert layout.scope("train").shards.exists(), "there are failures, to be done again"
    assert contents[0] == contents[1] == contents[2]


def test_shards_are_kept_as_long_as_a_split_has_failures(layout, commit_shard) -> None:
    shards = SHARDS[:2]
    done = [commit_shard(layout, shard, broken_rows=[9]) for shard in shards]
    merge(layout, Scope("train", shards), done, RECIPE)
    same = {"fingerprint": RECIPE.fingerprint, "device": done[0].device}
    intact = committed(layout, "train", shards, **same)
    assert list(intact.values()) == done
    done[1] = commit_shard(layout, shards[1])
    merge(layout, Scope("train", shards), done, RECIPE)
    assert not layout.scope("train").shards.exists(), "their rows are in the merged files"
    assert len(load(layout.embeddings("train"))["record_ids"]) == 16


@pytest.mark.parametrize("shape", [(WIDTH,), (8, 3, 3)])
def test_a_split_without_records_gives_a_file_of_the_right_width(layout, shape) -> None:
    merge(layout, Scope("val", ()), [], replace(RECIPE, embedding_shape=shape))
    stored = load(layout.embeddings("val"))
    assert stored["embeddings"].shape == (0, *shape)
    assert stored["labels"].shape == (0,)
    assert stored["labels"].dtype == torch.int64
    assert pq.read_table(layout.scope("val").manifest).num_rows == 0


def test_a_split_of_failures_alone_gives_a_file_without_rows(layout, commit_shard) -> None:
    shard = Shard("val", 0, 0, 3)
    receipt = commit_shard(layout, shard, broken_rows=[0, 1, 2])
    merge(layout, Scope("val", (shard,)), [receipt], RECIPE)
    assert load(layout.embeddings("val"))["embeddings"].shape == (0, WIDTH)
    assert pq.read_table(layout.scope("val").manifest)["embeddings"].to_pylist() == ["failed"] * 3


def test_without_embeddings_there_is_a_manifest_and_no_pt(layout, receipts) -> None:
    status = {**RECIPE.status, "embeddings": "off"}
    merge(layout, SCOPE, receipts, replace(RECIPE, embedding_shape=None, status=status))
    assert not layout.embeddings("train").exists()
    manifest = pq.read_table(layout.scope("train").manifest)
    assert set(manifest["row"].to_pylist()) == {None}


@pytest.mark.parametrize("what", ["a byte", "missing"])
def test_a_shard_that_changed_after_its_commit_stops_the_merge(layout, receipts, what) -> None:
    path = layout.scope("train").shard(SHARDS[1])
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content) if what == "a byte" else path.unlink()
    with pytest.raises(RunError, match=f"{SHARDS[1].name}.*changed"):
        merge(layout, SCOPE, receipts, RECIPE)
    assert not layout.embeddings("train").exists()
    assert merged(layout, "train", fingerprint=RECIPE.fingerprint) is None
    assert not list(layout.temp.iterdir())
    intact = committed(layout, "train", SHARDS, fingerprint=RECIPE.fingerprint, device="cpu (AVX2)")
    assert intact.keys() == {*SHARDS} - {SHARDS[1]}


def test_a_result_stands_for_its_files(layout, receipts) -> None:
    assert merged(layout, "train", fingerprint=RECIPE.fingerprint) is None
    merge(layout, SCOPE, receipts, RECIPE)
    result = merged(layout, "train", fingerprint=RECIPE.fingerprint)
    assert result is not None
    expected = {"records": 146, "failures": 4, "pictures": 146, "picture_bytes": 1460}
    assert {key: result[key] for key in expected} == expected
    shards = len(SHARDS)
    assert result["seconds"] == {"read": 0.5 * shards, "compute": 1.0 * shards}
    assert merged(layout, "train", fingerprint="0" * 64) is None
    layout.embeddings("train").unlink()
    assert merged(layout, "train", fingerprint=RECIPE.fingerprint) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"files": []}', '{"files": [[1]]}'])
def test_a_damaged_result_is_none(layout, receipts, content: str) -> None:
    merge(layout, SCOPE, receipts, RECIPE)
    layout.scope("train").result.write_text(content)
    assert merged(layout, "train", fingerprint=RECIPE.fingerprint) is None


def test_single_records_get_files_of_their_own(layout, commit_shard) -> None:
    shard, ids = Shard("train", 1, 4, 7), ("../a", "b", "c")
    receipt = commit_shard(
        layout, shard, scope="records", broken_rows=[6], name=lambda row: ids[row - 4]
    )
    merge(layout, Scope("records", (shard,), ids), [receipt], RECIPE)
    files = {path.name for path in layout.embeddings("train").parent.iterdir()}
    assert files == {"%2E.%2Fa_embedding.pt", "b_embedding.pt"}
    stored = load(layout.record_embedding("../a"))
    assert torch.equal(stored["embeddings"], embeddings([4]))
    assert (stored["record_ids"], stored["labels"].tolist()) == (["../a"], [1])
    result = merged(layout, "records", fingerprint=RECIPE.fingerprint)
    assert result is not None
    assert (result["records"], result["failures"]) == (2, 1)


def test_any_text_is_an_id(layout, commit_shard) -> None:
    ids = ["\ud800", "\udcff.png", "a\0b", "\0", "", "🫀", "é", "\\ud800", "a\nb"]
    shard = Shard("val", 0, 0, len(ids))
    receipt = commit_shard(layout, shard, name=ids.__getitem__)
    merge(layout, Scope("val", (shard,)), [receipt], RECIPE)
    assert load(layout.embeddings("val"))["record_ids"] == ids
    shown = pq.read_table(layout.scope("val").manifest)["record_id"].to_pylist()
    assert shown == [r"\ud800", r"\udcff.png", r"a\x00b", r"\x00", *ids[4:]]


def test_manifests_of_scopes_are_joined_in_the_order_given(layout, commit_shard) -> None:
    parts = []
    for split, records in (("val", 3), ("test", 0), ("train", 5)):
        shards = cut(split, records, batch_size=2)
        merge(layout, Scope(split, shards), [commit_shard(layout, s) for s in shards], RECIPE)
        parts.append(layout.scope(split).manifest)
    concatenate(layout.manifest, parts, temp_dir=layout.temp)
    joined = pq.read_table(layout.manifest)
    assert joined["split"].to_pylist() == ["val"] * 3 + ["train"] * 5
    assert joined["row"].to_pylist() == [0, 1, 2, 0, 1, 2, 3, 4]


FILL = """
import re, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from artifactgen.embeddings import EmbeddingsFile
def anonymous_kB():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
temp, rows = Path(sys.argv[1]), int(sys.argv[2])
row = torch.arange(1024, dtype=torch.float32).numpy()
before = anonymous_kB()
file = EmbeddingsFile(temp / "rows", records=rows, shape=(1024,))
for i in range(rows):
    file.append("x", row, 0)
file.save(temp / "a.pt", classes=(), meta={}, temp_dir=temp)
print(anonymous_kB() - before)
"""


def test_memory_does_not_grow_with_the_embeddings(tmp_path: Path) -> None:
    rows = 20_000  # of 4 kB: 80 MB
    done = subprocess.run(
        [sys.executable, "-c", FILL, tmp_path, str(rows)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (tmp_path / "a.pt").stat().st_size > rows * 4096
    assert int(done.stdout) < 20_000


FULL_DISK = """
import sys
from pathlib import Path
from artifactgen.embeddings import EmbeddingsFile
try:
    EmbeddingsFile(Path(sys.argv[1]) / "rows", records=1_000, shape=(1_000,))
except OSError as error:
    print(error.errno, list(Path(sys.argv[1]).iterdir()))
"""


def test_a_full_disk_is_an_error_and_not_the_death_of_the_process(tmp_path: Path) -> None:
    in_small_disk = 'mount -t tmpfs -o size=1m none "$1" && exec "$2" -c "$3" "$1"'
    can_mount = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", str(tmp_path)]
    if subprocess.run(can_mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk")
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", in_small_disk, "-", tmp_path, sys.executable, FULL_DISK],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "28 []\n"), done.stderr


def test_rows_that_were_promised_must_come(tmp_path: Path) -> None:
    file = EmbeddingsFile(tmp_path / "rows", records=2, shape=(3,))
    file.append("a", np.ones(3, np.float32), 0)
    with pytest.raises(AssertionError):
        file.save(tmp_path / "a.pt", classes=(), meta={}, temp_dir=tmp_path / "tmp")
    assert not (tmp_path / "a.pt").exists()
