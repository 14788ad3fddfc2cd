"""What the program is made of, and how it is said that it is another one."""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import artifactgen
import distributed
from distributed.usage import config_dir
from distributed.versions import differences, source_files, versions

READ = "import json, distributed.versions as found; print(json.dumps(found.source_files()))"
FILE = "our file distributed/cli.py"


def test_versions_are_those_of_what_decides_bytes() -> None:
    found = versions()
    assert found["python"] == platform.python_version()
    assert found["artifactgen"] == artifactgen.__version__
    assert found["torch"] == version("torch")
    assert found["ray"] == version("ray")


def test_every_file_of_the_program_has_a_digest() -> None:
    found = source_files()
    assert all(re.fullmatch(r"[0-9a-f]{16}", digest) for digest in found.values())
    assert {FILE, "our file artifactgen/worker.py"} <= set(found)
    assert len([name for name in found if name.endswith(".yaml")]) == len(
        list(config_dir().rglob("*.yaml"))
    )


def test_nothing_differs_from_itself() -> None:
    assert differences({**versions(), **source_files()}, {**versions(), **source_files()}) == []


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        ({"torch": "2.13.0"}, {"torch": "2.14.1"}, ["torch 2.13.0 → 2.14.1"]),
        ({"ray": "2.60.0"}, {}, ["ray 2.60.0 → absent"]),
        ({}, {"timm": "1.0.31"}, ["timm absent → 1.0.31"]),
        ({FILE: "0a"}, {FILE: "0b"}, ["distributed/cli.py"]),
        ({FILE: "0a"}, {}, ["distributed/cli.py"]),
        ({}, {FILE: "0b"}, ["distributed/cli.py"]),
        ({"a": "1", "b": "2"}, {"b": "2", "a": "1"}, []),
    ],
    ids=["version", "package gone", "package new", "changed", "gone", "new", "order"],
)
def test_differences_in_words(before: dict[str, str], now: dict[str, str], told: list[str]) -> None:
    assert differences(before, now) == told


def test_a_file_that_is_changed_added_or_gone_is_named(tmp_path: Path) -> None:
    """In a copy of the program, which is asked before and after."""
    for package in (artifactgen, distributed):
        folder = Path(str(package.__file__)).parent
        shutil.copytree(folder, tmp_path / folder.name)
    shutil.copytree(config_dir(), tmp_path / "configs")
    before = of_copy(tmp_path)
    (tmp_path / "distributed" / "cli.py").write_text("changed = True\n")
    (tmp_path / "distributed" / "status.py").unlink()
    (tmp_path / "artifactgen" / "added.py").touch()
    (tmp_path / "configs" / "cluster" / "slurm.yaml").write_text("changed: true\n")
    assert sorted(differences(before, of_copy(tmp_path))) == [
        "artifactgen/added.py",
        "configs/cluster/slurm.yaml",
        "distributed/cli.py",
        "distributed/status.py",
    ]


def of_copy(folder: Path) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", READ], cwd=folder, capture_output=True, text=True, check=True
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found
