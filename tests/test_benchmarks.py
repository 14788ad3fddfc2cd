"""The table for a GPU, rehearsed on the CPU, and the timing that all tables rest on."""

from __future__ import annotations

import pytest
import torch

from benchmarks import gpu
from benchmarks.timing import interleave


def test_the_table_for_a_gpu_is_rehearsed_on_the_cpu(capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--images", "6", "--batch", "4", "--batches", "1", "--rounds", "1"]
    assert gpu.main(["--device", "cpu", "--models", "test_vit", "--no-compile", *size]) == 0
    printed = capsys.readouterr().out
    assert "| test_vit |" in printed
    assert "say nothing of a GPU" in printed


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
