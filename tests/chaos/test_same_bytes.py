"""Runs under load leave the same bytes: a few here, and fifty with `make chaos`."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos.same_bytes import Tally, compare_runs, count, main, table


@pytest.mark.ray
def test_runs_under_load_leave_the_same_bytes(tmp_path: Path) -> None:
    tallies = compare_runs(tmp_path, 3)
    assert [(t.exact, t.runs) for t in tallies.values()] == [(2, 2), (1, 1)], table(tallies)
    assert all(tally.large >= 8 * tally.runs for tally in tallies.values()), "figures of real size"
    assert list(tmp_path.glob("run-*")) == []


def test_nothing_is_removed_that_lay_in_the_folder(tmp_path: Path) -> None:
    for name in ("mine.txt", "images.h5"):
        (tmp_path / name).write_text("mine")
    assert main(["--folder", str(tmp_path), "--runs", "0"]) == 0
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "mine.txt": "mine",
        "images.h5": "mine",
    }


def test_a_single_other_byte_is_found() -> None:
    tally = Tally()
    count(tally, {"a.png": b"12", "b.png": b"1"}, {"a.png": b"13", "c.png": b"1"}, "run-000")
    assert (tally.runs, tally.exact) == (1, 0)
    assert tally.differing == ["run-000/a.png", "run-000/b.png", "run-000/c.png"]
