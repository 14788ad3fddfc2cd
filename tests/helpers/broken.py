"""Files that are broken, made for real, and what a run with them is held to."""

from __future__ import annotations

import csv
import io
import os
import re
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from helpers.workspace import Outcome, artifacts
from numpy.typing import NDArray
from PIL import Image

_OF_ALL = ("overview_", "embeddings/")
"""Beginnings of files that stand for several records."""


def picture(seed: int, size: tuple[int, int] = (70, 80)) -> NDArray[np.uint8]:
    """Noise, (H, W, 3)."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*size, 3), dtype=np.uint8)


def encoded(pixels: NDArray[Any] | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A picture file."""
    file = io.BytesIO()
    made = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    made.save(file, kind, **options)
    return file.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file, with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(width: int, height: int, extra: bytes = b"") -> bytes:
    """A PNG file of some kilobytes that claims a size; `extra` are further chunks."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    stream = png_chunk(b"IDAT", zlib.compress(bytes(5_000_000), 9))
    return b"\x89PNG\r\n\x1a\n" + header + extra + stream + png_chunk(b"IEND", b"")


def failures(output: Path) -> dict[str, str]:
    """Record id to the reason in `failures.csv`."""
    with (output / "failures.csv").open(newline="") as file:
        return {row["record_id"]: row["error"] for row in csv.DictReader(file)}


def assert_others_equal(output: Path, clean: Path, broken: Iterable[str]) -> None:
    """What was made of the good records is equal to the bit to a run in which all are good.

    Args:
        output: of the run with broken records.
        clean: of the run with good records in their places.
        broken: the records that failed.
    """
    rows = pq.read_table(output / "manifest.parquet").to_pylist()
    failed = {row["record_id"] for row in rows if row["error"]}
    assert failed == set(broken)
    drawn = {name for row in rows for name in (*row["gradcam_files"], *row["attention_files"])}
    found, expected = (_of_records(artifacts(folder)) for folder in (output, clean))
    assert found.keys() == drawn
    assert len(drawn) > len(rows) - len(failed)
    assert [name for name in found if found[name] != expected[name]] == []
    for path in clean.glob("embeddings/*_embeddings.pt"):
        _assert_rows_equal(output / "embeddings" / path.name, path, failed)


def _of_records(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if not name.startswith(_OF_ALL)}


def _assert_rows_equal(found: Path, expected: Path, failed: set[str]) -> None:
    here, clean = (torch.load(path, weights_only=True) for path in (found, expected))
    kept = [row for row, name in enumerate(clean["record_ids"]) if name not in failed]
    assert here["record_ids"] == [clean["record_ids"][row] for row in kept]
    assert torch.equal(here["embeddings"], clean["embeddings"][kept])
    assert torch.equal(here["labels"], clean["labels"][kept])
    assert here["embeddings"].isfinite().all()


def assert_refused(outcome: Outcome, told: str, output: Path, *, lines: int = 10) -> None:
    """Exit code 2, a few lines that match, no traceback, and nothing was made.

    Args:
        outcome: of the command.
        told: regular expression of what was said.
        output: the output directory, which there must not be.
        lines: how many at most are about what is wrong.
    """
    assert outcome.exit_code == 2, outcome.text
    assert re.search(told, outcome.text), outcome.text
    assert "Traceback" not in outcome.text
    complaint = [line for line in outcome.lines if not re.match(r"\S+ \S+ [A-Z]\w+: ", line)]
    assert len(complaint) <= lines, outcome.text
    assert not output.exists()


def peak_growth(do: Callable[[], Any]) -> int:
    """By how many bytes the memory of this process goes up in between, at most."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: proc(5)
    before = _memory("VmRSS")
    do()
    return _memory("VmHWM") - before


def _memory(what: str) -> int:
    status = Path("/proc/self/status").read_text()
    found = re.search(rf"{what}:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def make_fifo(path: Path) -> None:
    """A pipe that nobody writes to: who opens it waits for ever."""
    os.mkfifo(path)
