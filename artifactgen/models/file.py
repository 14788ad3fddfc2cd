"""A checkpoint as a file: known by its content, before anything of it is loaded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NoReturn

from artifactgen.errors import CheckpointError, did_you_mean, printable
from artifactgen.filetypes import CUT_ARCHIVE, EMPTY, TORCH_FILE, describe_file
from artifactgen.models.folder import INDEX, shards_of, weights_in
from artifactgen.patience import is_of_the_machine

_ENDINGS = (".ckpt", ".pth", ".pt", ".safetensors", ".bin", ".tar", ".th", ".pkl", ".pickle")


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """Which checkpoint it is, wherever it lies."""

    path: Path
    """The file with the weights, or the index of several."""
    sha256: str
    """Of the content, in hex; of several files, of one after the other."""
    size_bytes: int
    """Of all files."""
    mtime_ns: int
    """Of several files, the sum: each of them counts."""
    shards: tuple[Path, ...] = ()
    """The files that an index names."""
    trusted: bool = False
    """Whether it may run code of its own, where that is what it takes to read it."""

    def absolute(self) -> CheckpointFile:
        """The same file, from whatever folder it is looked at."""
        shards = tuple(shard.absolute() for shard in self.shards)
        return replace(self, path=self.path.absolute(), shards=shards)

    def require_untouched(self) -> None:
        """`CheckpointError` if a file was replaced or written to since it was identified."""
        if _size_and_mtime((self.path, *self.shards)) != (self.size_bytes, self.mtime_ns):
            raise self._changed()

    def require_same(self) -> None:
        """`CheckpointError` if the content is another one now: the whole file is read."""
        if identify(self.path).sha256 != self.sha256:
            raise self._changed()

    def _changed(self) -> CheckpointError:
        return CheckpointError(
            f"{self.path} changed while the job was running. Run the same command again."
        )


def identify(path: str | Path, *, trusted: bool = False) -> CheckpointFile:
    """Check what can be told of a checkpoint without loading it, and hash it.

    Args:
        path: a file, an index of several, or the folder that either lies in.
        trusted: whether it may run code of its own.

    Raises:
        CheckpointError: no such file, or one that is visibly no checkpoint.
    """
    path, shards = check(Path(path))
    size_bytes, mtime_ns = _size_and_mtime((path, *shards))
    digest = hashlib.sha256()
    for file in (path, *shards):
        with file.open("rb") as stream:
            hashlib.file_digest(stream, lambda: digest)
    return CheckpointFile(path, digest.hexdigest(), size_bytes, mtime_ns, shards, trusted)


def check(path: Path) -> tuple[Path, tuple[Path, ...]]:
    """The file of a checkpoint, and those that it names, if it is an index.

    Raises:
        CheckpointError: what is visibly no checkpoint: the first bytes tell.
    """
    if not path.exists():
        raise CheckpointError(f"ckpt_path={path}: no such file. {_nearby(path)}")
    if path.is_dir():
        path = weights_in(path) or _require_file(path)
    if not path.is_file():
        raise CheckpointError(f"ckpt_path={path}: not a regular file.")
    shards = shards_of(path) if path.name.endswith(INDEX) else ()
    for file in shards or (path,):
        _check_content(file)
    return path, shards


def _require_file(folder: Path) -> NoReturn:
    raise CheckpointError(
        f"ckpt_path={folder}: a folder without model.safetensors, pytorch_model.bin or an index of "
        f"them; name a file. {_nearby(folder / 'x.ckpt')}"
    )


def _check_content(path: Path) -> None:
    try:
        reason = _not_a_checkpoint(path)
    except OSError as error:
        if is_of_the_machine(error):
            raise
        raise CheckpointError(f"ckpt_path={path}: cannot be read ({error.strerror}).") from error
    if reason:
        raise CheckpointError(f"ckpt_path={path}: {reason}")


def _size_and_mtime(paths: tuple[Path, ...]) -> tuple[int, int]:
    stats = [path.stat() for path in paths]
    return sum(stat.st_size for stat in stats), sum(stat.st_mtime_ns for stat in stats)


def _nearby(path: Path) -> str:
    if not path.parent.is_dir():
        return f"There is no folder {path.parent}."
    entries = (entry for entry in path.parent.iterdir() if entry.suffix.lower() in _ENDINGS)
    others = (entry for entry in entries if entry != path and entry.is_file())
    names = sorted(printable(entry.name) for entry in others)
    if not names:
        return f"There are no checkpoints ({', '.join(_ENDINGS[:5])}, …) in {path.parent}."
    return did_you_mean(path.name, names)


def _not_a_checkpoint(path: Path) -> str:
    """Why a file of this kind is refused, or nothing."""
    what = describe_file(path)
    if what == EMPTY:
        return "empty (0 bytes); copy or save it again."
    if what == CUT_ARCHIVE:
        return "cut short, its end is missing; copy or save it again."
    return "" if what in (None, TORCH_FILE) else f"{what}, no checkpoint. {_nearby(path)}"
