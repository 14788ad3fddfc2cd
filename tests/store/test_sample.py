import tracemalloc

import pyarrow.parquet as pq
import pytest

from artifactgen.store.manifest import manifest_row, write_manifest
from artifactgen.store.predictions import read_predictions
from artifactgen.store.rows import Row
from artifactgen.store.sample import quotas, sample_evenly
from artifactgen.types import Failure

KINDS = ["gradcam", "attention"]


def write(path, labels, predictions=None, broken=()):
    def rows():
        for row, label in enumerate(labels):
            if row in broken:
                failure = Failure(f"r{row}", "test", row, "read", "cut short")
                made = Row(f"r{row}", "test", row, failure=failure)
            else:
                made = Row(
                    f"r{row}",
                    "test",
                    row,
                    label=label,
                    prediction=None if predictions is None else predictions[row],
                    files={"gradcam": [f"gradcam/r{row}/class_0.png"]},
                )
            yield manifest_row(made, pt_row=None, status=dict.fromkeys(KINDS, "ok"))

    write_manifest(path, rows(), kinds=KINDS, temp_dir=path.parent / "tmp")
    return path


def labels_of(records):
    return [record.label for record in records]


@pytest.mark.parametrize(
    ("counts", "most", "expected"),
    [
        ({0: 50, 1: 50, 2: 50, 3: 50, 4: 50}, 16, {0: 3, 1: 3, 2: 3, 3: 3, 4: 3}),
        ({0: 50, 1: 1, 2: 50}, 16, {0: 7, 1: 1, 2: 7}),
        ({0: 2, 1: 1}, 16, {0: 2, 1: 1}),
        ({7: 1000}, 16, {7: 16}),
        ({}, 16, {}),
    ],
)
def test_classes_get_equally_many_places(counts, most, expected):
    assert quotas(counts, most=most) == expected


def test_of_more_classes_than_places_every_nth_is_taken():
    given = quotas(dict.fromkeys(range(1000), 5), most=16)
    assert len(given) == 16
    assert set(given.values()) == {1}
    gaps = [b - a for a, b in zip(list(given), list(given)[1:], strict=False)]
    assert set(gaps) <= {62, 63}


def test_records_come_class_by_class_and_evenly_spaced(tmp_path):
    path = write(tmp_path / "m.parquet", [row % 5 for row in range(300)])
    records, total = sample_evenly(path, most=16)
    assert total == 300
    assert labels_of(records) == [label for label in range(5) for _ in range(3)]
    assert [record.position for record in records[:3]] == [50, 150, 250]
    assert records[0].record_id == "r50"
    assert records[0].prediction is None
    assert records[0].files == {"gradcam": ("gradcam/r50/class_0.png",), "attention": ()}


def test_without_labels_predictions_are_the_classes(tmp_path):
    path = write(tmp_path / "m.parquet", [-1] * 90, [row % 3 for row in range(90)])
    records, _ = sample_evenly(path, most=6)
    assert [record.prediction for record in records] == [0, 0, 1, 1, 2, 2]


def test_without_both_records_are_evenly_spaced(tmp_path):
    records, _ = sample_evenly(write(tmp_path / "m.parquet", [-1] * 40), most=4)
    assert [record.position for record in records] == [5, 15, 25, 35]


def test_failed_records_are_not_chosen(tmp_path):
    broken = [row for row in range(60) if row % 4 != 1]
    path = write(tmp_path / "m.parquet", [row % 2 for row in range(60)], broken=broken)
    records, total = sample_evenly(path, most=16)
    assert total == 15
    assert [record.position % 4 for record in records] == [1] * 15


@pytest.mark.parametrize("broken", [(), range(5)])
def test_no_records_are_none(tmp_path, broken):
    path = write(tmp_path / "m.parquet", [0] * len(broken), broken=broken)
    assert sample_evenly(path, most=16) == ([], 0)


def test_row_groups_do_not_change_the_choice(tmp_path, monkeypatch):
    labels = [(row * 7) % 5 for row in range(1000)]
    whole = sample_evenly(write(tmp_path / "a.parquet", labels, broken=[3, 500]), most=16)
    monkeypatch.setattr("artifactgen.store.manifest._ROWS_PER_GROUP", 37)
    assert sample_evenly(write(tmp_path / "b.parquet", labels, broken=[3, 500]), most=16) == whole


def test_memory_does_not_grow_with_the_manifest(tmp_path, monkeypatch):
    monkeypatch.setattr("artifactgen.store.manifest._ROWS_PER_GROUP", 500)
    peaks = []
    for rows in (2_000, 20_000):
        path = write(tmp_path / f"{rows}.parquet", [row % 5 for row in range(rows)])
        sample_evenly(path, most=16)  # imports and caches
        tracemalloc.start()
        sample_evenly(path, most=16)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0] + 50_000


def test_row_groups_are_bounded_by_the_bytes_of_paths(tmp_path, monkeypatch):
    """Of 1,000 classes a row has a thousand paths, and Arrow's text ends at 2 GiB."""
    monkeypatch.setattr("artifactgen.store.manifest._BYTES_PER_GROUP", 5_000)
    files = {"gradcam": [f"gradcam/r/class_{k}.png" for k in range(100)]}

    def rows():
        for row in range(20):
            made = Row(f"r{row}", "test", row, label=0, prediction=0, files=files)
            yield manifest_row(made, pt_row=None, status={"gradcam": "ok"})

    path = tmp_path / "manifest.parquet"
    write_manifest(path, rows(), kinds=["gradcam"], temp_dir=tmp_path / "tmp")
    with pq.ParquetFile(path) as file:
        assert file.num_row_groups == 7
        table = file.read()
    assert table["record_id"].to_pylist() == [f"r{row}" for row in range(20)]
    assert table["gradcam_files"].to_pylist() == [files["gradcam"]] * 20


def test_predictions_are_read_with_their_labels_and_without_failures(tmp_path):
    path = write(tmp_path / "m.parquet", [0, 1, -1, 2], [0, 2, 1, 2], broken=(0,))
    ((labels, predictions),) = read_predictions(path)
    assert labels.tolist() == [1, -1, 2]
    assert predictions.tolist() == [2, 1, 2]
    without = write(tmp_path / "n.parquet", [0, 1])
    assert [len(labels) for labels, _ in read_predictions(without)] == [0]
