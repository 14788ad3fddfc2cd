"""Which files of a folder are tables of the data set, and which split each is of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifactgen.data.splits import SPLITS, group_by_split
from artifactgen.data.walking import files_below, files_matching, root_of
from artifactgen.errors import DataError

ENDINGS = (".parquet", ".arrow", ".feather")
DICT, STATE = "dataset_dict.json", "state.json"
"""What `datasets` writes beside a `DatasetDict` and a `Dataset` that it saves to disk."""


@dataclass(frozen=True, slots=True)
class Found:
    """The tables of a data set."""

    root: Path
    """What their names are relative to."""
    splits: Mapping[str, list[str]]
    """Paths relative to `root`, with `/`, in their order."""


def find_tables(path: str) -> Found:
    """Find the tables of a folder, of a folder that `datasets` saved, a file or a glob.

    Raises:
        DataError: there is none, or their splits cannot be told.
    """
    folder = Path(path)
    if not folder.is_dir():
        return _of_files(path)
    if (folder / DICT).is_file():
        return _saved_dict(folder)
    if (folder / STATE).is_file():
        names = _saved(folder, "")
        split = _json(folder / STATE).get("_split")
        return Found(folder, {SPLITS.get(str(split), str(split or "test")): names})
    names = [name for name in files_below(folder, endings=ENDINGS) if not _is_cache(name)]
    if not names:
        raise DataError(f"There is no table ({', '.join(ENDINGS)}) below data.path={path}.")
    return Found(folder, group_by_split(names, remedy="set data.split_column"))


def _of_files(pattern: str) -> Found:
    paths = files_matching(pattern, of_folder="*.parquet")
    root = root_of(pattern)
    names = [path.relative_to(root).as_posix() for path in paths]
    return Found(root, group_by_split(names, remedy="set data.split_column"))


def _saved_dict(folder: Path) -> Found:
    splits: dict[str, list[str]] = {}
    for name in sorted(map(str, _json(folder / DICT).get("splits", ()))):
        split = SPLITS.get(name, name)
        if split in splits:
            raise DataError(f"{folder / DICT}: two splits are {split}. Remove one.")
        splits[split] = _saved(folder / name, f"{name}/")
    return Found(folder, splits)


def _saved(folder: Path, prefix: str) -> list[str]:
    """Tables of a `Dataset` that was saved: others in its folder are results that it cached."""
    state = _json(folder / STATE)
    if any(state.get(key) for key in ("_indices_data_files", "_indices_files")):
        raise DataError(
            f"{folder}: rows of it are chosen by an index, as old versions of datasets saved them. "
            f"Save it anew: datasets.load_from_disk({str(folder)!r}).flatten_indices()"
            ".save_to_disk(…)"
        )
    files = state.get("_data_files")
    if not isinstance(files, list):
        raise DataError(f"{folder / STATE}: names no files. Was the data set saved to its end?")
    return [f"{prefix}{file['filename']}" for file in files]


def _json(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, Mapping):
        raise DataError(f"{path} is not what datasets writes: no object of JSON.")
    return content


def _is_cache(name: str) -> bool:
    """Whether a file is what `datasets` keeps of `map` and `filter` beside its own."""
    stem, _, ending = name.rpartition("/")[2].rpartition(".")
    return ending == "arrow" and stem.startswith(("cache-", "tmp"))
