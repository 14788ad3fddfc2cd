"""What a file is, by its content: for messages about one that is not what was asked for."""

from __future__ import annotations

import codecs
import zipfile
import zlib
from pathlib import Path

from artifactgen.errors import printable

EMPTY, CUT_ARCHIVE = "empty", "a zip archive that is cut short"
TORCH_FILE = "a file of torch.save"
_ZIP, _TEXT, _CSV = "a zip archive", "a text file", "a table in text (CSV)"
_PEEK_BYTES = 1024
_SIGNATURES = (
    (b"", 0, EMPTY),
    (b"\x89HDF\r\n\x1a\n", 0, "an HDF5 file"),
    (b"\x89PNG\r\n\x1a\n", 0, "a PNG image"),
    (b"\xff\xd8\xff", 0, "a JPEG image"),
    (b"GIF8", 0, "a GIF image"),
    (b"II*\0", 0, "a TIFF image"),
    (b"MM\0*", 0, "a TIFF image"),
    (b"%PDF-", 0, "a PDF"),
    (b"PAR1", 0, "a Parquet table"),
    (b"ARROW1", 0, "an Arrow table"),
    (b"SQLite format 3\0", 0, "an SQLite data base"),
    (b"\x93NUMPY", 0, "a NumPy array (.npy)"),
    (b"ustar", 257, "a tar archive"),
    (b"DICM", 128, "a DICOM file"),
    (b"n+1\0", 344, "a NIfTI volume"),
    (b"ni1\0", 344, "a NIfTI header"),
    (b"CDF\x01", 0, "a NetCDF file of before version 4"),
    (b"CDF\x02", 0, "a NetCDF file of before version 4"),
    (b"BZh", 0, "packed by bzip2"),
    (b"\xfd7zXZ\0", 0, "packed by xz"),
    (b"\x28\xb5\x2f\xfd", 0, "packed by zstd"),
    (b"\x7fELF", 0, "a program"),
    (b"version https://git-lfs", 0, "a Git LFS pointer (fetch the file: git lfs pull)"),
)
"""(bytes, offset, what it is); `b""` stands for a file without any."""
_ENDINGS = {".yaml": "YAML", ".yml": "YAML", ".py": "Python", ".json": "JSON", ".csv": "CSV"}


def describe_file(path: Path) -> str | None:
    """What a file is: `a PNG image`, `a text file (YAML)`; None where its content tells nothing.

    Only its first bytes are read. Of gzip, what is packed is told too; of a zip archive, what is
    in it. The ending of its name is asked only which kind of text it is.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        what = _describe(file.read(_PEEK_BYTES))
    if what == _ZIP:
        return _describe_zip(path)
    kind = _ENDINGS.get(path.suffix.lower())
    return f"{_TEXT} ({kind})" if what in (_TEXT, _CSV) and kind else what


def _describe(head: bytes) -> str | None:
    for signature, offset, what in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature and (signature or not head):
            return what
    if head[:2] == b"\x1f\x8b":
        return _describe_gzip(head)
    if head[:4] == b"PK\x03\x04":
        return _ZIP
    return _describe_text(head)


def _describe_gzip(head: bytes) -> str:
    try:
        packed = zlib.decompressobj(wbits=31).decompress(head, _PEEK_BYTES)
    except zlib.error:
        packed = b""
    inside = _describe(packed) if packed else None
    return f"{inside}, packed by gzip" if inside else "packed by gzip"


def _describe_zip(path: Path) -> str:
    """A zip archive, which several formats are: names of its members tell which.

    Torch keeps a pickle in its archives, and TorchScript does.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return CUT_ARCHIVE
    if any(name.endswith("/data.pkl") for name in names):
        return TORCH_FILE
    if names and all(name.endswith(".npy") for name in names):
        return "NumPy arrays (.npz)"
    more = ", …" if len(names) > 3 else ""
    return f"{_ZIP} of {printable(', '.join(names[:3]))[:100]}{more}" if names else f"{_ZIP}, empty"


def _describe_text(head: bytes) -> str | None:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # its last character may be cut
    except UnicodeDecodeError:
        return None
    if any(char < " " and char not in "\t\r\n\f" for char in text):
        return None
    if text.lstrip("\ufeff \t\r\n").startswith("<"):
        return "a web page, such as a server sends in place of a file"
    first, *rest = text.splitlines() or [""]
    separator = next((mark for mark in ",;\t" if mark in first), None)
    is_table = separator and rest and all(separator in line for line in rest[:2])
    return _CSV if is_table else _TEXT
