"""Ranks find each other by files, notice who is silent, and learn of the end."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from distributed.runners import rendezvous
from distributed.runners import watch as watching_module
from distributed.runners.rendezvous import Head, Pulse, RankState, Rendezvous
from distributed.runners.watch import Watch

HEAD = Head("192.0.2.7:10001", "secret", {"ray": "2.60.0"})
DAY_S = 86_400


@pytest.fixture(autouse=True)
def in_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous, "BEAT_S", 0.05)
    monkeypatch.setattr(rendezvous, "POLL_S", 0.02)
    monkeypatch.setattr(watching_module, "_SILENT_S", 0.4)
    monkeypatch.setattr(watching_module, "_GONE_S", 0.2)
    monkeypatch.setattr(watching_module, "POLL_S", 0.02)


@pytest.fixture
def meeting(tmp_path: Path) -> Rendezvous:
    """That the first rank has opened."""
    opened = Rendezvous.of_step(tmp_path / "logs", "11-0-0-36329")
    opened.open()
    return opened


def eventually(condition: Callable[[], object], timeout_s: float = 20) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(condition())


def watch(meeting: Rendezvous, *, start_s: float = 60) -> Watch:
    return Watch(meeting, {1: "n2"}, start_s=start_s)


def make_old(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (time.time() - 2 * DAY_S,) * 2)


def test_the_folder_is_for_this_user_alone(tmp_path: Path) -> None:
    """It holds the secret."""
    before = os.umask(0)
    try:
        meeting = Rendezvous.of_step(tmp_path / "logs", "11-0-0-1")
        assert not meeting.is_there()
        meeting.open()
    finally:
        os.umask(before)
    assert meeting.is_there()
    assert meeting.folder.stat().st_mode & 0o777 == 0o700


def test_another_step_meets_elsewhere(meeting: Rendezvous) -> None:
    requeued = Rendezvous.of_step(meeting.folder.parent, "11-1-0-36329")
    meeting.publish(HEAD)
    assert requeued.head() is None
    assert not requeued.is_there()


def test_the_head_is_found_as_it_was_published(meeting: Rendezvous) -> None:
    assert meeting.head() is None
    meeting.publish(HEAD)
    assert Rendezvous(meeting.folder).head() == HEAD


def test_a_rank_tells_and_is_heard(meeting: Rendezvous) -> None:
    state = RankState(1, "n2", device="cpu avx2", workers=2)
    meeting.tell(state)
    meeting.tell(RankState(10, "n11"))
    assert sorted(meeting.ranks(), key=lambda found: found.rank) == [state, RankState(10, "n11")]
    meeting.forget(1)
    assert meeting.ranks() == [RankState(10, "n11")]
    meeting.forget(1)  # twice is no error


def test_a_file_that_is_damaged_is_as_if_it_were_not_there(meeting: Rendezvous) -> None:
    (meeting.folder / "rank-1.json").write_text("{")
    (meeting.folder / "head.json").write_text("")
    assert meeting.ranks() == []
    assert meeting.head() is None


def test_a_pulse_is_seen_and_changes_with_every_beat(meeting: Rendezvous) -> None:
    with Pulse(meeting, RankState(1, "n2")).beating() as pulse:
        [first] = meeting.ranks()
        assert eventually(lambda: meeting.ranks()[0].pulse > first.pulse + 2)
        pulse.update(device="cpu avx2")
        assert meeting.ranks()[0].device == "cpu avx2"
    assert "pulse" not in {thread.name for thread in threading.enumerate()}


def test_a_rank_with_a_pulse_is_no_cause_for_complaint(meeting: Rendezvous) -> None:
    watching = watch(meeting, start_s=0.1)
    with Pulse(meeting, RankState(1, "n2")).beating():
        begun = time.monotonic()
        while time.monotonic() - begun < 1.2:  # three times as long as silence may last
            assert watching.complaints() == []
            time.sleep(0.02)
        assert watching.has_begun(1)


def test_a_rank_that_falls_silent_is_noticed(meeting: Rendezvous) -> None:
    watching = watch(meeting)
    with Pulse(meeting, RankState(1, "n2")).beating():
        assert watching.complaints() == []
    assert eventually(watching.complaints)
    assert watching.complaints() == ["n2 (rank 1) has been silent for 0 s."]


def test_a_rank_that_never_comes_is_noticed(meeting: Rendezvous) -> None:
    watching = watch(meeting, start_s=0.2)
    assert watching.complaints() == []
    assert eventually(watching.complaints)
    assert watching.complaints() == ["n2 (rank 1) did not start within 0 s."]
    assert not watching.has_begun(1)


def test_an_error_of_a_rank_is_told_at_once(meeting: Rendezvous) -> None:
    watching = watch(meeting)
    with Pulse(meeting, RankState(1, "n2")).beating() as pulse:
        pulse.update(error="Ray ended 3 times on this node.")
        assert watching.complaints() == ["n2: Ray ended 3 times on this node."]


def test_who_is_gone_without_a_word_is_told_from_who_lives_and_who_has_left(
    meeting: Rendezvous,
) -> None:
    watching = Watch(meeting, {1: "n2", 2: "n3", 3: "n4"}, start_s=60)
    meeting.tell(RankState(1, "n2"))  # and never again
    with (
        Pulse(meeting, RankState(2, "n3")).beating(),
        Pulse(meeting, RankState(3, "n4")).beating() as leaving,
    ):
        leaving.leave()
        assert watching.gone() == ["n2 (rank 1) is gone."]


def test_who_has_left_is_not_brought_back_by_a_late_beat(meeting: Rendezvous) -> None:
    with Pulse(meeting, RankState(1, "n2")).beating() as pulse:
        pulse.leave()
        pulse.update(workers=2)
        time.sleep(0.2)
        assert meeting.ranks() == []


def test_the_end_is_told_and_the_folder_goes_when_all_have_left(meeting: Rendezvous) -> None:
    seen = threading.Event()

    def other() -> None:
        with Pulse(meeting, RankState(1, "n2")).beating() as pulse:
            if eventually(meeting.is_done):
                seen.set()
            pulse.leave()

    thread = threading.Thread(target=other)
    thread.start()
    assert eventually(meeting.ranks)
    meeting.close(wait_s=20)
    thread.join(20)
    assert seen.is_set(), "the folder must not go before the rank has seen the end"
    assert not meeting.is_there()


def test_the_first_rank_does_not_wait_for_those_that_failed(meeting: Rendezvous) -> None:
    meeting.tell(RankState(0, "n1"))
    meeting.tell(RankState(1, "n2", error="no GPU"))
    closing = threading.Thread(target=meeting.close, kwargs={"wait_s": 600}, daemon=True)
    closing.start()
    closing.join(30)
    assert not closing.is_alive()
    assert not meeting.is_there()


def test_a_rank_that_tells_after_the_end_brings_nothing_back(meeting: Rendezvous) -> None:
    with Pulse(meeting, RankState(1, "n2")).beating() as pulse:
        meeting.close()
        pulse.update(workers=2)
        time.sleep(0.2)
    assert not meeting.folder.exists()
    with pytest.raises(FileNotFoundError):
        meeting.publish(HEAD)


def test_what_killed_jobs_left_goes_with_the_next_one_after_a_day(tmp_path: Path) -> None:
    old, young, empty = (Rendezvous.of_step(tmp_path, f"{name}-0-0-1") for name in (1, 2, 3))
    for left in (old, young, empty):
        left.open()
    for left in (old, young):
        left.publish(HEAD)
    kept = tmp_path / "1_0_log.out"
    kept.write_text("of a job")
    make_old(old.folder / "head.json", old.folder, empty.folder, kept)
    make_old(young.folder)  # whose file is fresh
    Rendezvous.of_step(tmp_path, "4-0-0-1").open()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "1_0_log.out",
        "ranks-2-0-0-1",
        "ranks-4-0-0-1",
    ]
