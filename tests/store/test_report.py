from __future__ import annotations

import csv
import json
import math
from datetime import UTC, datetime
from typing import Any

import pytest

from artifactgen.plan import Scope
from artifactgen.reducer import Recipe, merge
from artifactgen.store.layout import Layout
from artifactgen.store.report import _TOTALS, RunFacts, write_reports
from artifactgen.store.results import merged
from artifactgen.types import Failure, Shard

FAILURES = [
    Failure("\ud800", "train", 1, "read", "cut short"),
    Failure('a,"b"', "train", 2, "compute", "two\nlines, and a NUL\0"),
]
FACTS = RunFacts(
    command="generate_artifacts ckpt_path='a b.ckpt'",
    configuration={"data": {"path": "\udcff.h5"}},
    settings={"limit": None},
    fingerprint="f" * 64,
    checkpoint={"path": "/x/a.ckpt", "sha256": "e" * 64, "summary": "152 of 152", "audit": {}},
    artifacts={
        "embeddings": {"status": "ok", "pooling": "auto"},
        "attention": {"status": "unsupported: no attention"},
    },
    first_look={"pixels": "uint8, 0 to 255", "accuracy": ""},
    accuracy={"train": {"summary": "1 of 2 right (50.0 %)", "right": 1, "records": 2}},
    warnings=["no better than guessing:\ndata.mean?"],
    empty_maps=["gradcam: class NOR"],
    workers=2,
    started=datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
    seconds={"preflight": 1.0, "total": 12.34},
)
CLASSES = ["NOR", "é"]


@pytest.fixture
def reported(layout: Layout, commit_shard) -> Layout:
    recipe = Recipe((5,), tuple(CLASSES), {}, {"embeddings": "ok"}, "f" * 64)
    results: dict[str, Any] = {}
    for split, records in (("train", 3), ("val", 2)):
        shard = Shard(split, 0, 0, records)
        halved = 3 if split == "val" else 0
        host = "node2" if split == "val" else "node1"
        receipt = commit_shard(layout, shard, broken_rows=[1, 2], halved_batches=halved, host=host)
        merge(layout, Scope(split, (shard,)), [receipt], recipe)
        results[split] = merged(layout, split, fingerprint="f" * 64)
    write_reports(layout, results, FAILURES, FACTS, classes=CLASSES)
    return layout


def refuse(constant: str) -> float:
    raise AssertionError(f"{constant} is no JSON")


def test_run_json_is_plain_json_with_everything_of_the_run(reported: Layout) -> None:
    text = (reported.root / "run.json").read_bytes().decode("utf-8")
    report = json.loads(text, parse_constant=refuse)
    assert report["counts"] == {
        "records": 2,
        "failures": 3,
        "pictures": 2,
        "picture_bytes": 20,
        "halved_batches": 3,
        "by_split": {
            "train": {"records": 1, "failures": 2, "pictures": 1},
            "val": {"records": 1, "failures": 1, "pictures": 1},
        },
    }
    assert report["worker_seconds"] == {"read": 1.0, "compute": 2.0}
    assert report["started"] == "2024-01-02T03:04:05+00:00"
    assert report["configuration"] == FACTS.configuration
    assert report["checkpoint"] == FACTS.checkpoint
    assert report["accuracy"] == FACTS.accuracy
    assert report["warnings"] == FACTS.warnings
    assert {"python", "torch", "timm", "numpy"} <= report["versions"].keys()


def test_a_time_that_is_no_number_is_an_error_and_no_broken_json(reported: Layout) -> None:
    before = (reported.root / "run.json").read_bytes()
    result = dict.fromkeys(_TOTALS, 0)
    results = {"train": {**result, "computed_by": [], "seconds": {"read": math.nan}}}
    with pytest.raises(ValueError, match="JSON"):
        write_reports(reported, results, [], FACTS, classes=CLASSES)
    assert (reported.root / "run.json").read_bytes() == before


def test_failures_csv_is_read_back_by_any_reader(reported: Layout) -> None:
    with (reported.root / "failures.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["record_id", "split", "stage", "error"],
        [r"\ud800", "train", "read", "cut short"],
        ['a,"b"', "train", "compute", r"two" + "\n" + r"lines, and a NUL\x00"],
    ]


def test_the_summary_says_it_to_a_person(reported: Layout) -> None:
    text = (reported.root / "summary.md").read_text("utf-8")
    assert "3 batches were halved because memory on the device ran out." in text
    for fact in (
        "2 records, 3 failed, 2 pictures",
        FACTS.command,
        "| train | 1 | 2 | 1 |",
        "| embeddings | ok | pooling auto |",
        "| attention | unsupported: no attention |  |",
        r"- `\ud800` (train, read): cut short",
        "152 of 152",
        "- train: 1 of 2 right (50.0 %)",
        "- no better than guessing: data.mean?",
        "- gradcam: class NOR",
        "Pixels: uint8, 0 to 255",
        "s on cpu (AVX2) with 2 worker(s)",
        "| cpu (AVX2) | node1 | 1 | 3 |",
        "| cpu (AVX2) | node2 | 1 | 2 |",
    ):
        assert fact in text


def test_classes_json_names_every_index(reported: Layout) -> None:
    assert json.loads((reported.root / "classes.json").read_text("utf-8")) == {"0": "NOR", "1": "é"}


def test_the_report_says_what_computed_it(reported: Layout) -> None:
    report = json.loads((reported.root / "run.json").read_text("utf-8"))
    assert report["device"] == "cpu (AVX2)"
    assert report["computed_by"] == [
        {"device": "cpu (AVX2)", "host": "node1", "shards": 1, "records": 3},
        {"device": "cpu (AVX2)", "host": "node2", "shards": 1, "records": 2},
    ]
