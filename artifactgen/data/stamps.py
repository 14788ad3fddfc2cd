"""Whether files stay as they are while a run reads them, told by their size and time of change."""

from __future__ import annotations

import os
from array import array
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from artifactgen.data.base import Catalog, InFiles, Source, is_of_the_file
from artifactgen.types import Shard

Stamps = Mapping[Shard, "array[int]"]
"""Of each shard eight bytes for each file that its records lie in."""

_READERS = 16
_MISSING = -1


def take_stamps(source: Source, catalog: Catalog, shards: Sequence[Shard]) -> Stamps:
    """Size and time of change of every file of some shards, as they are now.

    Many at once, since a shared file system answers each of them late. Nothing of a source that
    does not say which files it reads.

    Raises:
        OSError: of a kind that may pass.
    """
    if not isinstance(source, InFiles):
        return {}
    with ThreadPoolExecutor(_READERS, thread_name_prefix="stamps") as pool:
        stamps = pool.map(partial(_stamps_of, source, catalog), shards)
        return dict(zip(shards, stamps, strict=True))


def changed_files(source: Source, catalog: Catalog, before: Stamps) -> dict[Shard, list[str]]:
    """The files that are not as they were, of each shard that has such.

    Raises:
        OSError: of a kind that may pass.
    """
    if not isinstance(source, InFiles):
        return {}
    now = take_stamps(source, catalog, list(before))
    return {
        shard: _different(source, catalog, shard, before[shard], now[shard])
        for shard in before
        if before[shard] != now[shard]
    }


def _different(
    source: InFiles, catalog: Catalog, shard: Shard, before: array[int], now: array[int]
) -> list[str]:
    files = source.files(catalog, shard.split, shard.start, shard.stop)
    found = zip(files, before, now, strict=False)
    return sorted({path for path, was, is_ in found if was != is_})


def _stamps_of(source: InFiles, catalog: Catalog, shard: Shard) -> array[int]:
    files = source.files(catalog, shard.split, shard.start, shard.stop)
    return array("q", map(_stamp, files))


def _stamp(path: str) -> int:
    try:
        stat = os.stat(path)  # noqa: PTH116  # a million paths are quicker as text
    except ValueError:  # of a NUL in a path that a table gives
        return _MISSING
    except OSError as error:
        if is_of_the_file(error):
            return _MISSING
        raise
    return hash((stat.st_size, stat.st_mtime_ns))
