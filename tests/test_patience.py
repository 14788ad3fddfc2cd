from __future__ import annotations

import errno
import os

import pytest
import torch

import artifactgen.patience
from artifactgen.errors import RunError
from artifactgen.patience import may_pass, patiently


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifactgen.patience, "PAUSES_S", (0.001, 0.002))


class Failing:
    """Fails so many times, and then gives how often it was called."""

    def __init__(self, error: Exception, times: int = 99) -> None:
        self.error, self.times, self.calls = error, times, 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return self.calls


STALE = OSError(errno.ESTALE, "Stale file handle", "/data/x")


def test_what_passes_is_done_in_the_end() -> None:
    assert patiently(Failing(STALE, times=2), what="The data set") == 3
    assert patiently(Failing(MemoryError(), times=1), what="The data set") == 2


def test_what_does_not_pass_is_an_error_with_words() -> None:
    failing = Failing(STALE)
    with pytest.raises(RunError) as caught:
        patiently(failing, what="Shard a")
    told = "Shard a: OSError: [Errno 116] Stale file handle: '/data/x'\nIt was tried 3 times."
    assert str(caught.value) == told
    assert failing.calls == 3
    with pytest.raises(RunError, match=r"^Shard a: MemoryError\nIt was tried"):
        patiently(Failing(MemoryError()), what="Shard a")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
        OSError(errno.EACCES, os.strerror(errno.EACCES)),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        NotImplementedError(),
        ValueError("x"),
        RunError("said already"),
    ],
)
def test_what_stays_is_raised_at_once(error: Exception) -> None:
    failing = Failing(error)
    with pytest.raises(type(error)) as caught:
        patiently(failing, what="Shard a")
    assert caught.value is error
    assert failing.calls == 1


def test_what_torch_calls_a_shortage_may_pass() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50)
    assert may_pass(caught.value)
    assert may_pass(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert may_pass(RuntimeError("can't start new thread"))
