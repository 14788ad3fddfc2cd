from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from artifactgen.store.fingerprint import fingerprint as checksum
from artifactgen.store.layout import Layout
from artifactgen.store.ledger import commit, committed
from artifactgen.types import Receipt, Shard

FINGERPRINT = "f" * 64
DEVICE = "cpu (AVX2)"
SHARDS = tuple(Shard("train", i, 4 * i, 4 * i + 4) for i in range(5))
VICTIM = SHARDS[2]
DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-3]),
    "halved": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "a list": lambda path: path.write_text("[]"),
    "a number": lambda path: path.write_text("1"),
    "an object": lambda path: path.write_text("{}"),
    "not UTF-8": lambda path: path.write_bytes(b'{"shard": "\xff"}'),
}


@pytest.fixture
def receipts(layout: Layout, commit_shard) -> dict[Shard, Receipt]:
    return {shard: commit_shard(layout, shard, broken_rows=[9]) for shard in SHARDS}


def done(layout: Layout, fingerprint: str = FINGERPRINT) -> dict[Shard, Receipt]:
    return committed(layout, "train", SHARDS, fingerprint=fingerprint, device=DEVICE)


def test_what_was_committed_comes_back_in_the_order_of_the_plan(layout, receipts) -> None:
    assert list(done(layout).items()) == list(receipts.items())
    turned = committed(layout, "train", SHARDS[::-1], fingerprint=FINGERPRINT, device=DEVICE)
    assert tuple(turned) == SHARDS[::-1]


def test_other_settings_devices_scopes_and_cuts_made_nothing(layout, receipts) -> None:
    assert done(layout, fingerprint="0" * 64) == {}
    assert committed(layout, "train", SHARDS, fingerprint=FINGERPRINT, device="cpu") == {}
    assert committed(layout, "val", SHARDS, fingerprint=FINGERPRINT, device=DEVICE) == {}
    longer = Shard("train", 2, 8, 13)
    assert committed(layout, "train", [longer], fingerprint=FINGERPRINT, device=DEVICE) == {}


def flips(path: Path, times: int) -> Iterator[str]:
    """Flip one bit of a file after another, each alone."""
    content, rng = path.read_bytes(), random.Random(0)
    for _ in range(times):
        position, bit = rng.randrange(len(content)), rng.randrange(8)
        changed = bytearray(content)
        changed[position] ^= 1 << bit
        path.write_bytes(changed)
        yield f"bit {bit} of byte {position} of {path.name}"
    path.write_bytes(content)


@pytest.mark.parametrize("kind", ["shard", "entry"])
def test_one_flipped_bit_anywhere_undoes_that_shard_alone(layout, receipts, kind: str) -> None:
    path = getattr(layout.scope("train"), kind)(VICTIM)
    for flip in flips(path, 300):
        assert done(layout).keys() == receipts.keys() - {VICTIM}, flip
    assert done(layout) == receipts


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
@pytest.mark.parametrize("kind", ["shard", "entry"])
def test_a_damaged_file_undoes_that_shard_alone(layout, receipts, kind: str, damage) -> None:
    damage(getattr(layout.scope("train"), kind)(VICTIM))
    assert done(layout).keys() == receipts.keys() - {VICTIM}


def test_an_entry_under_the_name_of_another_shard_counts_for_neither(layout, receipts) -> None:
    state = layout.scope("train")
    state.entry(SHARDS[0]).replace(state.entry(VICTIM))
    assert done(layout).keys() == receipts.keys() - {VICTIM, SHARDS[0]}


def test_the_second_file_of_a_shard_counts_as_well(layout, commit_shard) -> None:
    shard = SHARDS[0]
    main = commit_shard(layout, shard).files[0]
    other = commit_shard(layout, SHARDS[1]).files[0]
    both = Receipt(shard, 4, "node1", DEVICE, files=(main, other))
    commit(layout, "train", both, fingerprint=FINGERPRINT)
    assert done(layout)[shard] == both
    (layout.root / other.path).write_bytes(b"changed")
    assert done(layout) == {}


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda p: p.write_bytes(b""), lambda p: shutil.rmtree(p.parent)]
)
def test_a_shard_whose_picture_is_gone_or_cut_is_not_committed(layout, receipts, damage) -> None:
    damage(layout.root / f"gradcam/{VICTIM.start}/class_0.png")
    found = committed(layout, "train", SHARDS, fingerprint=FINGERPRINT, device=DEVICE)
    assert set(found) == set(SHARDS) - {VICTIM}


@pytest.mark.parametrize("key", ["host", "device"])
def test_an_entry_that_does_not_say_where_it_was_computed_is_done_again(
    layout, receipts, key: str
) -> None:
    path = layout.scope("train").entry(VICTIM)
    entry = json.loads(path.read_text("utf-8"))
    del entry["checksum"], entry[key]
    path.write_text(json.dumps({"checksum": checksum(entry), **entry}), "utf-8")
    assert set(done(layout)) == set(SHARDS) - {VICTIM}
