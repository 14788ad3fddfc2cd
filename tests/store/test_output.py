from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from artifactgen.errors import ConfigError, OutputError
from artifactgen.store.layout import REPORTS, Layout
from artifactgen.store.output import (
    check_output,
    difference_to,
    foreign_files,
    is_called,
    open_output,
    refuse_other_settings,
    remove_owned,
    require_own,
)

OURS = (
    "embeddings/train_embeddings.pt",
    "embeddings/p%2F1_embedding.pt",
    "gradcam/p1/class_0.png",
    "attention_maps/p1_attention.png",
    "maps/train/train-000000.h5",
    ".artifactgen/scopes/train/ledger/train-000000.json",
)
SETTINGS: dict[str, Any] = {"model": {"backbone": "vit"}, "limit": None}


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


@pytest.fixture
def filled(layout: Layout) -> Layout:
    """A directory with everything that the program makes, and files of somebody else."""
    patterns = ["gradcam/*/class_*.png", "attention_maps/*_attention.png"]
    open_output(layout, SETTINGS, patterns=patterns)
    layout.lock.touch()
    for name in REPORTS:
        (layout.root / name).write_text("ours")
    for path in OURS:
        (layout.root / path).parent.mkdir(parents=True, exist_ok=True)
        (layout.root / path).write_text("ours")
    for path in ("notes.txt", "embeddings/umap.pdf"):
        (layout.root / path).write_text("mine")
    (layout.root / "mine" / "deep").mkdir(parents=True)
    (layout.root / "mine" / "deep" / "manifest.parquet").write_text("mine")
    return layout


def refusal(root: Path, data_root: Path | None = None) -> str:
    with pytest.raises(OutputError) as error:
        check_output(Layout(root), data_root=data_root)
    assert str(root) in str(error.value)
    return str(error.value)


def test_new_empty_and_own_directories_may_be_used(tmp_path: Path, filled: Layout) -> None:
    (tmp_path / "empty").mkdir()
    for root in (tmp_path / "a" / "b" / "new", tmp_path / "empty", filled.root):
        before = tree(tmp_path)
        check_output(Layout(root), data_root=tmp_path / "data")
        assert tree(tmp_path) == before, "checking makes nothing"


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is a file" in refusal(tmp_path / "file")
    assert "is a file" in refusal(tmp_path / "file" / "out" / "deep")


def test_the_directory_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / ".hidden").write_text("")
    assert "not empty" in refusal(tmp_path / "theirs")


def test_the_data_set_is_never_written_to(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "link").symlink_to(data)
    for root in (data, data / "out", tmp_path / "link" / "out", data / "x" / ".." / "out"):
        assert "data set" in refusal(root, data_root=data)
    check_output(Layout(tmp_path / "data2"), data_root=data)


CHECK_AS_NOBODY = """
import os, sys
from pathlib import Path
from artifactgen.errors import ConfigError, OutputError
from artifactgen.store.layout import Layout
from artifactgen.store.output import check_output
if os.getuid() == 0:
    os.setuid(65534)
try:
    check_output(Layout(Path("out")), data_root=None)
except OutputError as error:
    print(error)
"""


def test_no_right_to_write_is_known_before(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    check = [sys.executable, "-c", CHECK_AS_NOBODY]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        check, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert "no right to write" in done.stdout, done.stderr


def test_other_settings_are_refused_with_what_differs(layout: Layout) -> None:
    assert difference_to(layout, SETTINGS) == [], "a new directory"
    open_output(layout, SETTINGS)
    assert difference_to(layout, SETTINGS) == []
    changes = difference_to(layout, {**SETTINGS, "limit": 4})
    assert changes == ["limit: null → 4"]
    with pytest.raises(OutputError, match=r"(?s)limit: null → 4.*overwrite=true"):
        refuse_other_settings(layout, changes)


@pytest.mark.parametrize("content", [b"", b'{"model": ', b"\xff\xfe"])
def test_damaged_settings_are_others(layout: Layout, content: bytes) -> None:
    open_output(layout, SETTINGS)
    layout.settings.write_bytes(content)
    (change,) = difference_to(layout, SETTINGS)
    assert "damaged" in change
    remove_owned(layout)
    assert difference_to(layout, SETTINGS), "the removal is not over before a run has begun"
    open_output(layout, SETTINGS)
    assert difference_to(layout, SETTINGS) == []


def test_starting_anew_removes_what_is_ours_and_nothing_else(filled: Layout) -> None:
    remove_owned(filled)
    foreign = {"notes.txt", "mine", "mine/deep", "mine/deep/manifest.parquet"}
    foreign |= {"embeddings", "embeddings/umap.pdf"}
    state = {".artifactgen", ".artifactgen/lock", ".artifactgen/settings.json"}
    assert tree(filled.root) - {".artifactgen/tmp"} == foreign | state
    remove_owned(filled)
    assert filled.lock.exists()


def test_a_removal_that_was_interrupted_is_finished_before_anything_else(filled: Layout) -> None:
    """Its first step; then the process dies."""
    (filled.root / "gradcam/p1/class_0.png").unlink()
    (filled.root / "gradcam/p1/class_0.png").mkdir()  # what cannot be unlinked stops the removal
    with pytest.raises(OSError, match="class_0"):
        remove_owned(filled)
    assert not filled.success.exists()
    with pytest.raises(OutputError, match="interrupted"):
        refuse_other_settings(filled, difference_to(filled, SETTINGS))


def test_files_of_others_are_mentioned(filled: Layout) -> None:
    assert foreign_files(filled) == ["mine", "notes.txt"]


def test_opening_sweeps_temporary_files_and_keeps_the_rest(filled: Layout) -> None:
    filled.temp.mkdir(exist_ok=True)
    (filled.temp / "stale.pt").write_bytes(b"half")
    before = tree(filled.root)
    open_output(filled, SETTINGS)
    assert before - tree(filled.root) == {".artifactgen/tmp/stale.pt"}


def test_the_output_directories_of_a_sweep_are_not_foreign(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    (tmp_path / "ckpt_path-a.ckpt" / ".artifactgen").mkdir(parents=True)
    check_output(layout, data_root=None)
    (tmp_path / "embeddings").mkdir()
    with pytest.raises(OutputError, match="not empty"):
        check_output(layout, data_root=None)
    layout.state.mkdir()
    assert foreign_files(layout) == []


@pytest.mark.parametrize(
    "pattern",
    [
        *("", "*", "?*", "*/x.png", "e*/x.png", "edges/**/*.png", "/etc/*", "../x", "a/../x"),
        *(".artifactgen/*", "embeddings/*", "maps/*.png", "run.json"),
    ],
)
def test_files_of_others_cannot_be_called_ones_own(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"edges: files=.*such as edges/\*\.png"):
        require_own("edges", [pattern])


def test_names_of_ones_own() -> None:
    require_own("edges", ["edges/*.png", "edges/*/class_*.png", "overview_*.png"])
    assert is_called("edges/a.png", ["edges/*.png"])
    assert not is_called("edges/a/b.png", ["edges/*.png"]), "as a removal finds them"
    assert not is_called("x/edges/a.png", ["edges/*.png"])


def test_a_damaged_list_of_ones_own_is_none(filled: Layout) -> None:
    for content in ("null", "{", "[1]"):
        filled.owned.write_text(content)
        assert "gradcam" in foreign_files(filled)
