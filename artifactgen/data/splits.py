"""Which split the names of folders and files tell."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from artifactgen.errors import DataError

SPLITS = {
    **{"train": "train", "training": "train"},
    **{"val": "val", "valid": "val", "validation": "val"},
    **{"test": "test", "testing": "test"},
}
"""Names of splits, and what they are called here."""
_WORDS = {**SPLITS, "dev": "val", "eval": "test", "evaluation": "test"}
"""Words in names of files, as `datasets` knows them."""
_SHARD_OF_SPLIT = re.compile(r"(\w+(?:\.\w+)*)-\d{5}-of-\d{5}\b")
"""As the Hugging Face hub keeps splits of any name, in a folder `data`."""


def group_by_split(paths: Iterable[str], *, remedy: str) -> dict[str, list[str]]:
    """Files by the split that each is of, as `datasets` reads them from names.

    `data/<split>-00000-of-00002.parquet` is of a split of any name; else `train`, `val`, `valid`,
    `validation`, `dev`, `test` or `eval` is looked for as a word of the file's name, then of the
    folders'. Where no file has one, all are `test`.

    Args:
        paths: relative to what the user named, with `/`.
        remedy: what else tells the splits, for the message.

    Raises:
        DataError: some files tell, others do not, or one tells two.
    """
    found = [(path, split_of_file(path)) for path in paths]
    named = next((path for path, split in found if split), None)
    groups: dict[str, list[str]] = {}
    for path, split in found:
        if named and not split:
            raise DataError(
                f"{path}: neither its name nor its folder says which split it is of, as that of "
                f"{named} does. Name it, move it away, or {remedy}."
            )
        groups.setdefault(split or "test", []).append(path)
    return {split: groups[split] for split in sorted(groups)}


def split_of_file(path: str) -> str | None:
    """The split that a path tells; None where it does not.

    Raises:
        DataError: it tells two.
    """
    *folders, name = PurePosixPath(path).parts
    shard = _SHARD_OF_SPLIT.match(name)
    if shard and folders[-1:] == ["data"]:
        return SPLITS.get(shard[1].lower(), shard[1])
    for part in (name.partition(".")[0], *reversed(folders)):
        words = {_WORDS[w] for w in re.split("[^a-z]+", part.lower()) if w in _WORDS}
        if len(words) > 1:
            raise DataError(f"{path}: {part} names two splits, {' and '.join(sorted(words))}.")
        if words:
            return words.pop()
    return None
