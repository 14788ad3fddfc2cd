"""Whether an output directory may be used, whether it is resumed, and what in it is ours."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from artifactgen.errors import ConfigError, OutputError
from artifactgen.store.atomic import read_json, write_json
from artifactgen.store.fingerprint import difference
from artifactgen.store.layout import MERGED_FILES, REPORTS, STATE_DIR, Layout

_BEING_REMOVED = {"overwrite": "a removal was interrupted"}


def check_output(layout: Layout, *, data_root: Path | None) -> None:
    """Refuse a directory that cannot be, or should not be, written to.

    Args:
        layout: of the output directory, which need not exist.
        data_root: folder of the data set, which must stay as it is.

    Raises:
        OutputError: a file, not writable, part of the data set, or somebody else's directory.
    """
    root = layout.root
    nearest = next(path for path in (root, *root.parents) if path.exists())
    if not nearest.is_dir():
        where = "" if nearest == root else f", below {nearest},"
        raise OutputError(f"output_dir={root}{where} is a file. Give a directory.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(f"output_dir={root}: no right to write to {nearest}. Give another one.")
    if data_root is not None and root.resolve().is_relative_to(data_root.resolve()):
        raise OutputError(
            f"output_dir={root} lies inside the data set ({data_root}), which is never written "
            "to. Give another directory."
        )
    if not layout.state.is_dir() and root.exists() and foreign_files(layout):
        raise OutputError(
            f"output_dir={root} is not empty, and not an output directory of this program. "
            "Give another one."
        )


def difference_to(layout: Layout, settings: Mapping[str, Any]) -> list[str]:
    """How `settings` differ from those that made what is there; nothing for a new directory."""
    try:
        return difference(read_json(layout.settings), settings)
    except FileNotFoundError:
        return []
    except ValueError:
        return [f"unknown: {layout.settings} is damaged"]


def refuse_other_settings(layout: Layout, changes: list[str]) -> None:
    """Raise an `OutputError` that shows what differs."""
    raise OutputError(
        f"{layout.root} holds artifacts that were made with other settings:\n"
        + "".join(f"  {line}\n" for line in changes)
        + "Give another output_dir, or add overwrite=true to replace what is there."
    )


def remove_owned(layout: Layout) -> None:
    """Remove everything that the program makes, but for locks and jobs; foreign files stay.

    From the first moment on the settings say that a removal is under way. Killed in the middle,
    the directory is thereby refused until a run with `overwrite=true` has finished the removal.
    """
    layout.success.unlink(missing_ok=True)
    write_json(layout.settings, _BEING_REMOVED, temp_dir=layout.temp)
    patterns = owned_patterns(layout)
    for pattern in patterns:
        for path in layout.root.glob(pattern):
            path.unlink()
    folders = {parent for pattern in patterns for parent in Path(pattern).parents}
    for folder in sorted(folders, key=lambda folder: -len(folder.parts)):
        if folder.parts:
            for path in layout.root.glob(str(folder)):
                _remove_empty(path)
    for path in layout.state.iterdir():
        is_lock = path.name.partition(".")[0] == layout.lock.name  # of the run, or of a part
        if not is_lock and path not in (layout.settings, layout.jobs):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _remove_empty(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
        folder.rmdir()


def open_output(
    layout: Layout, settings: Mapping[str, Any], *, patterns: Iterable[str] = ()
) -> None:
    """Make the directory ready for a run; call with the lock held.

    Args:
        layout: of the output directory.
        settings: what decides the bytes of the artifacts.
        patterns: what the files of the run's kinds and pages are called. From now on they are
            ours, whatever happens to the run.
    """
    shutil.rmtree(layout.temp, ignore_errors=True)
    owned = sorted({*_recorded_patterns(layout), *patterns})
    write_json(layout.owned, owned, temp_dir=layout.temp)
    write_json(layout.settings, dict(settings), temp_dir=layout.temp)


def owned_patterns(layout: Layout) -> tuple[str, ...]:
    """What the files are called that the program makes in a directory, below its root."""
    return (*REPORTS, *MERGED_FILES, *_recorded_patterns(layout))


def require_own(name: str, patterns: Iterable[str]) -> None:
    """`ConfigError` where a kind or page calls files its own that may be somebody else's.

    A pattern is of one depth, and begins with a name: a folder of its own, or the beginning of a
    file's.
    """
    taken = {STATE_DIR, *REPORTS, *(Path(pattern).parts[0] for pattern in MERGED_FILES)}
    for pattern in patterns:
        path = PurePosixPath(pattern)
        first, *rest = path.parts or ("",)
        wild = [index for index, char in enumerate(first) if char in "*?["]
        named = bool(first) and first not in taken and (not wild if rest else 0 not in wild)
        if not named or path.is_absolute() or not {"..", "**"}.isdisjoint(path.parts):
            raise ConfigError(
                f"{name}: files={pattern!r}: give names of its own, such as {name}/*.png."
            )


def is_called(path: str, patterns: Iterable[str]) -> bool:
    """Whether a file, relative to the output directory, is called as one of the patterns says."""
    parts = PurePosixPath(path).parts
    return any(
        len(parts) == len(wanted := PurePosixPath(pattern).parts)
        and all(map(fnmatchcase, parts, wanted))
        for pattern in patterns
    )


def _recorded_patterns(layout: Layout) -> list[str]:
    try:
        recorded: list[str] = read_json(layout.owned)
    except (FileNotFoundError, ValueError):
        return []
    return [pattern for pattern in recorded or () if isinstance(pattern, str)]


def foreign_files(layout: Layout) -> list[str]:
    """Names in an output directory that the program did not make.

    Without its state the directory is not one of ours, whatever its files are called. Output
    directories in it are: a sweep has one for each of its jobs there.
    """
    ours = [Path(pattern).parts[0] for pattern in owned_patterns(layout)]
    names = [STATE_DIR, *ours] if layout.state.is_dir() else []
    return sorted(
        path.name
        for path in layout.root.iterdir()
        if not any(fnmatchcase(path.name, name) for name in names)
        and not Layout(path).state.is_dir()
    )
