"""What a file is, by its content: for messages about one that is not what was asked for."""

from __future__ import annotations

import codecs
import zlib
from pathlib import Path

_PEEK_BYTES = 1024
_SIGNATURES = (
    (b"", 0, "empty"),
    (b"\x89HDF\r\n\x1a\n", 0, "an HDF5 file"),
    (b"\x89PNG\r\n\x1a\n", 0, "a PNG image"),
    (b"\xff\xd8\xff", 0, "a JPEG image"),
    (b"GIF8", 0, "a GIF image"),
    (b"II*\0", 0, "a TIFF image"),
    (b"MM\0*", 0, "a TIFF image"),
    (b"PAR1", 0, "a Parquet table"),
    (b"\x93NUMPY", 0, "a NumPy array (.npy)"),
    (b"ustar", 257, "a tar archive"),
    (b"DICM", 128, "a DICOM file"),
    (b"n+1\0", 344, "a NIfTI volume"),
    (b"CDF\x01", 0, "a NetCDF file of before version 4"),
    (b"CDF\x02", 0, "a NetCDF file of before version 4"),
    (
        b"version https://git-lfs",
        0,
        "a Git LFS pointer; fetch the file: git lfs pull",
    ),
)
"""(bytes, offset, what it is); `b""` stands for a file without any."""


def describe_file(path: Path) -> str | None:
    """What a file is: `a PNG image`, `an HTML page`; None where its content tells nothing.

    Only its first bytes are read. Of gzip, what is packed is told too.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return _describe(file.read(_PEEK_BYTES))


def _describe(head: bytes) -> str | None:
    for signature, offset, what in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature and (signature or not head):
            return what
    if head[:2] == b"\x1f\x8b":
        return _describe_gzip(head)
    if head[:2] == b"PK":
        return _describe_zip(head)
    return _describe_text(head)


def _describe_gzip(head: bytes) -> str:
    try:
        packed = zlib.decompressobj(wbits=31).decompress(head, _PEEK_BYTES)
    except zlib.error:
        packed = b""
    inside = _describe(packed) if packed else None
    return f"{inside}, packed by gzip" if inside else "packed by gzip"


def _describe_zip(head: bytes) -> str:
    """A zip archive, which several formats are; the name of its first member tells which."""
    name = head[30 : 30 + int.from_bytes(head[26:28], "little")]
    if name.endswith(b".npy"):
        return "NumPy arrays (.npz)"
    if name.endswith((b"/data.pkl", b"/.format_version")):
        return "a file of torch.save"
    return "a zip archive"


def _describe_text(head: bytes) -> str | None:
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # its last character may be cut
    except UnicodeDecodeError:
        return None
    if any(char < " " and char not in "\t\r\n\f" for char in text):
        return None
    if text.lstrip().lower().startswith(("<!doctype html", "<html")):
        return "an HTML page, such as a server sends in place of a file"
    first, *rest = text.splitlines()
    separator = next((mark for mark in ",;\t" if mark in first), None)
    if separator and rest and all(separator in line for line in rest[:2]):
        return "a table in text (CSV)"
    return "text"
