from __future__ import annotations

import random
import string
from pathlib import Path

import pytest

from artifactgen.store.layout import Layout, safe_name
from artifactgen.types import Shard

NASTY = [
    *("", ".", "..", "...", "../../x", "/etc/x", "a/b", "a\\b", "a\0", "\0", "\n", " ", "x.", "x "),
    *("_", "~", "%", "%25", "%2F", "%2e", "-rf", "CON", "con", "con.txt", "COM1", ".con", "conx"),
    *("é", "e\u0301", "🫀", "\ud800", "\udc80", "\udcff", "ÿ", "a" * 300, "a" * 301, "🫀" * 100),
    *("a" * 175 + "~" + "0" * 24, "." * 300, "con." + "a" * 300, "x" * 199 + ".", "x" * 200 + "."),
]


def random_ids(count: int) -> list[str]:
    """Ids from few characters, so that near-collisions are likely; some beyond any limit."""
    rng = random.Random(0)
    alphabet = "aA.%~25EeF/\\\0é🫀\ud800 \ncon" + string.digits
    short = ["".join(rng.choices(alphabet, k=rng.randrange(6))) for _ in range(count)]
    long = ["a" * 190 + "".join(rng.choices(alphabet, k=20)) for _ in range(count // 10)]
    return short + long


def test_distinct_ids_get_distinct_names() -> None:
    ids = {*NASTY, *random_ids(50_000)}
    names = {safe_name(record_id) for record_id in ids}
    assert len(ids) > 20_000
    assert len(names) == len(ids)


@pytest.mark.parametrize("record_id", NASTY, ids=ascii)
def test_a_name_is_one_plain_component(record_id: str) -> None:
    name = safe_name(record_id)
    assert set(name) <= set(string.ascii_letters + string.digits + "._=-%~")
    assert name not in ("", ".", "..")
    assert not name.startswith(".")
    assert not name.endswith(".")
    assert name.split(".")[0].lower() not in ("con", "com1")
    assert len(f"{name}_attention.png") <= 255
    assert safe_name(record_id) == name


@pytest.mark.parametrize("record_id", ["patient_123", "train_000012", "A-b.c=1", "x" * 200])
def test_plain_ids_keep_their_names(record_id: str) -> None:
    assert safe_name(record_id) == record_id


@pytest.mark.parametrize("name", NASTY, ids=ascii)
def test_nothing_lies_outside_of_the_output_directory(tmp_path: Path, name: str) -> None:
    root = tmp_path / "out"
    layout, shard = Layout(root), Shard(name, 0, 0, 1)
    state = layout.scope(name)
    paths = {
        root / "embeddings": [layout.record_embedding(name), layout.embeddings(name)],
        root / "maps": [layout.maps(name, shard)],
        layout.state / "scopes": [state.plan, state.result, state.entry(shard), state.shard(shard)],
    }
    for folder, inside in paths.items():
        for path in inside:
            assert path.resolve().is_relative_to(folder)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()  # a name that the file system takes
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_scopes_of_different_names_share_nothing(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    scopes = ["train", "record=train", "record=../train", "../train", "train/", "records=0"]
    assert len({layout.scope(name).root for name in scopes}) == len(scopes)
