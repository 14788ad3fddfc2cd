"""What is done: one small JSON file for each committed shard.

The entry is written last, after the files it names are safely on disk. So a shard is done exactly
if its entry is there, was made with the same settings, and the files still are what it says.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from artifactgen.store.atomic import read_json, sha256_file, write_json
from artifactgen.store.fingerprint import fingerprint as checksum
from artifactgen.store.layout import Layout
from artifactgen.store.shardfile import Picture, paths_of, read_pictures
from artifactgen.types import CommittedFile, Failure, Receipt, Shard

_READERS = 16
_WITHDRAWN = "withdrawn"


def commit(layout: Layout, scope: str, receipt: Receipt, *, fingerprint: str) -> None:
    """Declare a shard done."""
    content = {"fingerprint": fingerprint, **asdict(receipt)}
    entry = {"checksum": checksum(content), **content}
    write_json(layout.scope(scope).entry(receipt.shard), entry, temp_dir=layout.temp)


def withdraw(layout: Layout, scope: str, shard: Shard, *, fingerprint: str) -> None:
    """Take back that a shard is done, since what it was made of has changed.

    Its entry stays, so that pictures that are drawn no more are removed once it is done again.
    """
    receipt = _read_entry(layout, scope, shard, fingerprint)
    if receipt is not None:
        content = {"fingerprint": fingerprint, _WITHDRAWN: True, **asdict(receipt)}
        entry = {"checksum": checksum(content), **content}
        write_json(layout.scope(scope).entry(shard), entry, temp_dir=layout.temp)


def committed_file(root: Path, path: Path) -> CommittedFile:
    """Size and checksum of a file that lies below `root`."""
    return CommittedFile(str(path.relative_to(root)), path.stat().st_size, sha256_file(path))


def is_intact(root: Path, file: CommittedFile) -> bool:
    """Whether a committed file still is what it was, to the bit."""
    path = root / file.path
    return has_size(path, file.size_bytes) and sha256_file(path) == file.sha256


def committed(
    layout: Layout, scope: str, shards: Iterable[Shard], *, fingerprint: str, device: str
) -> dict[Shard, Receipt]:
    """The receipts of the shards that are done and intact, in the order of the plan.

    A shard with a missing, broken or foreign entry, computed on another kind of device, or with a
    file or picture that changed since, by a single bit, is left out: it will be done again. Every
    file is read; many at once, since a shared file system answers each of them late.
    """

    def intact(shard: Shard) -> Receipt | None:
        receipt = _read_entry(layout, scope, shard, fingerprint)
        same = receipt is not None and receipt.device == device
        return receipt if same and receipt and _is_whole(layout.root, receipt) else None

    with ThreadPoolExecutor(_READERS, thread_name_prefix="resume") as pool:
        return {receipt.shard: receipt for receipt in pool.map(intact, shards) if receipt}


def recorded(
    layout: Layout, scope: str, shards: Iterable[Shard], *, fingerprint: str
) -> Iterator[Receipt]:
    """The receipts of the shards that were done, whatever became of their files."""
    for shard in shards:
        if receipt := _read_entry(layout, scope, shard, fingerprint):
            yield receipt


def _is_whole(root: Path, receipt: Receipt) -> bool:
    """Whether a shard's files and pictures are what was committed; its own file lists these."""
    if not all(is_intact(root, file) for file in receipt.files):
        return False
    return all(_is_picture(root / path, picture) for path, picture in _pictures(root, receipt))


def remove_former_pictures(
    layout: Layout, scope: str, shard: Shard, *, but: Container[str], fingerprint: str
) -> None:
    """Remove what was committed of a shard that is done again, and is drawn no more.

    Call before the shard's file is written anew: killed at any point, the former file still lists
    what is left over, and the shard, whose pictures are gone, is done again.

    Args:
        layout: of the output directory.
        scope: that the shard is done for.
        shard: which one.
        but: paths of the pictures that are drawn now, relative to the output directory.
        fingerprint: of the settings.
    """
    former = _read_entry(layout, scope, shard, fingerprint, withdrawn=True)
    if former is None or not is_intact(layout.root, former.shard_file):
        return  # what is not known to be ours is not removed
    for path, _ in _pictures(layout.root, former):
        if path not in but:
            (layout.root / path).unlink(missing_ok=True)


def _pictures(root: Path, receipt: Receipt) -> Iterator[tuple[str, Picture]]:
    """The pictures of a committed shard, by their paths."""
    for record in read_pictures(root / receipt.shard_file.path):
        yield from paths_of(record)


def _is_picture(path: Path, picture: Picture) -> bool:
    return has_size(path, picture.size_bytes) and Picture.of(path.read_bytes()) == picture


def has_size(path: Path, size_bytes: int) -> bool:
    """Whether a file is there with as many bytes."""
    try:
        return path.stat().st_size == size_bytes
    except (FileNotFoundError, NotADirectoryError):
        return False


def _read_entry(
    layout: Layout, scope: str, shard: Shard, fingerprint: str, *, withdrawn: bool = False
) -> Receipt | None:
    """The receipt of a shard, if it is intact and of these settings.

    Args:
        layout: of the output directory.
        scope: that the shard is done for.
        shard: which one.
        fingerprint: of the settings.
        withdrawn: whether one counts that was taken back.
    """
    try:
        entry = read_json(layout.scope(scope).entry(shard))
        intact = entry.pop("checksum") == checksum(entry)
        receipt = _receipt(entry)
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
        return None
    same = intact and entry["fingerprint"] == fingerprint and receipt.shard == shard
    return receipt if same and (withdrawn or _WITHDRAWN not in entry) else None


def _receipt(entry: dict[str, Any]) -> Receipt:
    return Receipt(
        shard=Shard(**entry["shard"]),
        records=entry["records"],
        host=entry["host"],
        device=entry["device"],
        failures=tuple(Failure(**failure) for failure in entry["failures"]),
        files=tuple(CommittedFile(**file) for file in entry["files"]),
        pictures=entry["pictures"],
        picture_bytes=entry["picture_bytes"],
        halved_batches=entry["halved_batches"],
        empty_maps=entry["empty_maps"],
        seconds=entry["seconds"],
    )
