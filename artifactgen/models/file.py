"""A checkpoint as a file: known by its content, before anything of it is loaded."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from artifactgen.errors import CheckpointError, did_you_mean, printable
from artifactgen.filetypes import CUT_ARCHIVE, EMPTY, TORCH_FILE, describe_file
from artifactgen.patience import is_of_the_machine

_ENDINGS = (".ckpt", ".pth", ".pt", ".safetensors", ".bin", ".tar", ".th", ".pkl", ".pickle")


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """Which checkpoint it is, wherever it lies."""

    path: Path
    sha256: str
    """Of the content, in hex."""
    size_bytes: int
    mtime_ns: int

    def require_untouched(self) -> None:
        """`CheckpointError` if the file was replaced or written to since it was identified."""
        stat = self.path.stat()
        if (stat.st_size, stat.st_mtime_ns) != (self.size_bytes, self.mtime_ns):
            raise self._changed()

    def require_same(self) -> None:
        """`CheckpointError` if the content is another one now: the whole file is read."""
        if identify(self.path).sha256 != self.sha256:
            raise self._changed()

    def _changed(self) -> CheckpointError:
        return CheckpointError(
            f"{self.path} changed while the job was running. Run the same command again."
        )


def identify(path: str | Path) -> CheckpointFile:
    """Check what can be told of a checkpoint without loading it, and hash it.

    Raises:
        CheckpointError: no such file, or one that is visibly no checkpoint.
    """
    path = Path(path)
    check(path)
    stat = path.stat()
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    return CheckpointFile(path, digest.hexdigest(), stat.st_size, stat.st_mtime_ns)


def check(path: Path) -> None:
    """`CheckpointError` for what is visibly no checkpoint: the first bytes tell."""
    if not path.exists():
        raise CheckpointError(f"ckpt_path={path}: no such file. {_nearby(path)}")
    if path.is_dir():
        raise CheckpointError(
            f"ckpt_path={path}: a folder; name a file. {_nearby(path / 'x.ckpt')}"
        )
    if not path.is_file():
        raise CheckpointError(f"ckpt_path={path}: not a regular file.")
    try:
        reason = _not_a_checkpoint(path)
    except OSError as error:
        if is_of_the_machine(error):
            raise
        raise CheckpointError(f"ckpt_path={path}: cannot be read ({error.strerror}).") from error
    if reason:
        raise CheckpointError(f"ckpt_path={path}: {reason}")


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
