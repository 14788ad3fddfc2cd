"""The table for a GPU, rehearsed on the CPU, and the timing that all tables rest on."""

from __future__ import annotations

import argparse
from typing import Any

import pytest
import torch
from numpy.typing import NDArray

from artifactgen.engine import Engine, InFlight
from benchmarks.speed import gpu, gpu_table
from benchmarks.speed.timing import interleave


def test_the_table_for_a_gpu_is_rehearsed_on_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--images", "6", "--batch", "4", "--batches", "1", "--rounds", "1"]
    assert gpu.main(["--device", "cpu", "--models", "test_vit", "--no-compile", *size]) == 0
    printed = capsys.readouterr().out
    assert "| test_vit |" in printed
    assert "say nothing of a GPU" in printed


def test_ours_is_measured_as_a_worker_runs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deterministic, from the host's memory and back; only the bare loop is free of that."""
    seen: list[str] = []
    start, arrays = Engine.start, InFlight.arrays

    def started(engine: Engine, images_BCHW: NDArray[Any]) -> InFlight:
        seen.append("start" if torch.are_deterministic_algorithms_enabled() else "loose")
        return start(engine, images_BCHW)

    def fetched(flight: InFlight) -> dict[str, NDArray[Any]]:
        seen.append("arrays")
        return arrays(flight)

    monkeypatch.setattr(Engine, "start", started)
    monkeypatch.setattr(InFlight, "arrays", fetched)
    monkeypatch.setattr(
        gpu_table, "make_reproducible", lambda: torch.use_deterministic_algorithms(True)
    )
    sizes = {"batch": 2, "batches": 3, "rounds": 1}
    try:
        gpu_table.loops("test_vit", argparse.Namespace(device="cpu", compiled=False, **sizes))
    finally:
        torch.use_deterministic_algorithms(False)
    a_round = ["start", "start", "arrays", "start", "arrays", "arrays"]
    assert seen == a_round * 4, "warmed up once and timed once, for two sets of kinds"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_nothing_to_measure(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu.main([]) == 2
    assert "no CUDA device" in capsys.readouterr().err


def test_ways_are_timed_in_turns() -> None:
    done: list[str] = []
    ways = {name: lambda name=name: done.append(name) for name in "ab"}
    timings = interleave(ways, rounds=2)
    assert "".join(done) == "ab" + "ab" + "ba"
    assert [len(taken) for taken in timings.seconds.values()] == [2, 2]
