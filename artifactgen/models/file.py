"""A checkpoint as a file: known by its content, before anything of it is loaded."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

from artifactgen.errors import CheckpointError, did_you_mean, printable
from artifactgen.patience import is_of_the_machine

_ENDINGS = (".ckpt", ".pth", ".pt", ".safetensors", ".bin", ".tar", ".th", ".pkl", ".pickle")
_HEAD_BYTES = 512
_MAGIC = (
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"II*\0", "a TIFF image"),
    (0, b"MM\0*", "a TIFF image"),
    (0, b"%PDF-", "a PDF"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (0, b"PAR1", "a Parquet file"),
    (0, b"ARROW1", "an Arrow file"),
    (0, b"\x93NUMPY", "a NumPy array (.npy)"),
    (0, b"\x1f\x8b", "compressed with gzip (a NIfTI volume, or an archive to unpack)"),
    (0, b"BZh", "compressed with bzip2 (an archive to unpack)"),
    (0, b"\xfd7zXZ\0", "compressed with xz (an archive to unpack)"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd (an archive to unpack)"),
    (0, b"SQLite format 3\0", "an SQLite data base"),
    (0, b"\x7fELF", "a program"),
    (128, b"DICM", "a DICOM image"),
    (344, b"n+1\0", "a NIfTI volume"),
    (344, b"ni1\0", "a NIfTI header"),
)
"""(Place, bytes there, what has them): files that are taken for checkpoints by mistake."""


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
        with path.open("rb") as stream:
            head = stream.read(_HEAD_BYTES)
    except OSError as error:
        if is_of_the_machine(error):
            raise
        raise CheckpointError(f"ckpt_path={path}: cannot be read ({error.strerror}).") from error
    if reason := _not_a_checkpoint(path, head):
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


def _not_a_checkpoint(path: Path, head: bytes) -> str:
    """Why a file of this kind is refused, or nothing."""
    if not head:
        return "empty (0 bytes); copy or save it again."
    if head.lstrip().startswith(b"<"):
        return (
            "a web page, not a checkpoint: the download was answered with a page. Fetch it again."
        )
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the checkpoint itself. Run `git lfs pull`."
    if head.startswith(b"PK\x03\x04") and not zipfile.is_zipfile(path):
        return "cut short, its end is missing; copy or save it again."
    kind = _kind(path, head)
    return f"{kind}, no checkpoint. {_nearby(path)}" if kind else ""


def _kind(path: Path, head: bytes) -> str:
    """What a file is by its first bytes, where that is no kind of checkpoint."""
    for place, magic, kind in _MAGIC:
        if head[place:].startswith(magic):
            return kind
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(path)
    return _kind_of_text(path) if _is_text(head) else ""


def _kind_of_zip(path: Path) -> str:
    """Torch keeps a pickle in its archives, as TorchScript does, for which there is advice."""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith("data.pkl") for name in names):
        return ""
    if names and all(name.endswith(".npy") for name in names):
        return "an archive of NumPy arrays (.npz)"
    return f"a zip archive of other files ({printable(', '.join(names[:3]))[:100]})"


def _is_text(head: bytes) -> bool:
    """Whether it is text; pickles and headers of binary files hold control characters."""
    try:
        text = head.decode("utf-8", "strict" if len(head) < _HEAD_BYTES else "ignore")
    except UnicodeDecodeError:
        return False
    return all(char.isprintable() or char in "\n\r\t\f\ufeff" for char in text)


def _kind_of_text(path: Path) -> str:
    kinds = {".yaml": "YAML", ".yml": "YAML", ".py": "Python", ".json": "JSON", ".csv": "CSV"}
    kind = kinds.get(path.suffix.lower())
    return f"a text file ({kind})" if kind else "a text file"
