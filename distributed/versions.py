"""What the program is made of here: to notice another one elsewhere, or at another time."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import artifactgen
from distributed.usage import config_dir

_PACKAGES = ("torch", "timm", "numpy", "ray", "h5py", "zlib-ng", "opencv-python-headless")
_OURS = "our file "


def versions() -> dict[str, str]:
    """Versions of Python, of what decides bytes, and of the program."""
    found = {"python": platform.python_version(), "artifactgen": artifactgen.__version__}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def source_files() -> dict[str, str]:
    """The program's own files, each with a digest of what it holds."""
    packages = [Path(artifactgen.__file__).parent, Path(__file__).parent]
    files = [file for folder in packages for file in folder.rglob("*.py")]
    files += config_dir().rglob("*.yaml")
    top = packages[0].parent
    return {
        f"{_OURS}{_below(file, top)}": hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        for file in sorted(files)
    }


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """What differs, a line each: `torch 2.13.0 → 2.14.1`, `distributed/cli.py`."""
    names = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    return [
        name.removeprefix(_OURS)
        if name.startswith(_OURS)
        else f"{name} {before.get(name, 'absent')} → {now.get(name, 'absent')}"
        for name in names
    ]


def _below(file: Path, top: Path) -> Path:
    return file.relative_to(top) if file.is_relative_to(top) else Path(file.name)
