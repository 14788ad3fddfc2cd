"""Time and peak memory of listing what is large: a table of records, a tree of pictures.

Each scan runs in a process of its own, whose peak is that of everything it holds, libraries
included. `python -m benchmarks.speed.listing [--rows 10000000] [--files 1000000] [--folder DIR]`
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.speed.timing import machine

_SCAN = """
import importlib, json, re, sys, time
module, _, name = sys.argv[1].rpartition(".")
source = getattr(importlib.import_module(module), name)(**json.loads(sys.argv[2]))
start = time.perf_counter()
catalog = source.scan()
seconds = time.perf_counter() - start
# Not of `resource`, whose peak is that of the parent before the fork where that was higher.
peak = int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024
print(json.dumps([sum(map(len, catalog.splits.values())), seconds, peak]))
"""
_BATCH = 1 << 18
_FILES_OF_A_FOLDER = 5000


def write_tables(folder: Path, rows: int) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """The same rows as CSV and as Parquet: 32 pictures, named over and over."""
    target = "artifactgen.data.manifest.Manifest"
    write_picture(folder / "0.png")
    schema = pa.schema({name: pa.string() for name in ("record_id", "path", "split", "label")})
    paths = {ending: folder / f"table.{ending}" for ending in ("csv", "parquet")}
    with (
        csv.CSVWriter(paths["csv"], schema) as as_csv,
        pq.ParquetWriter(paths["parquet"], schema) as as_parquet,
    ):
        for start in range(0, rows, _BATCH):
            numbers = range(start, min(start + _BATCH, rows))
            batch = pa.record_batch(
                [
                    [f"patient_{i // 7:07d}_{i:08d}" for i in numbers],
                    [f"./{'/' * (i % 32)}0.png" for i in numbers],
                    [("train", "train", "val", "test")[i % 4] for i in numbers],
                    [f"class {i % 101}" for i in numbers],
                ],
                schema=schema,
            )
            as_csv.write_batch(batch)
            as_parquet.write_batch(batch)
    return {f"manifest, {ending}": (target, {"path": str(p)}) for ending, p in paths.items()}


def write_tree(folder: Path, files: int) -> dict[str, tuple[str, Mapping[str, Any]]]:
    """`train/<class>/<name>.png`, all one file by hard links, or copies where those run out."""
    write_picture(picture := folder / "one.png")
    content = picture.read_bytes()
    root = folder / "tree"
    for number in range(files):
        parent = root / "train" / f"class_{number // _FILES_OF_A_FOLDER:04d}"
        if number % _FILES_OF_A_FOLDER == 0:
            parent.mkdir(parents=True)
        path = parent / f"picture_{number:08d}.png"
        try:
            os.link(picture, path)
        except OSError:
            path.write_bytes(content)
            picture = path
    target = "artifactgen.data.image_folder.ImageFolder"
    return {"image_folder": (target, {"root": str(root)})}


def write_picture(path: Path) -> None:
    """The smallest of pictures."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "png")
    path.write_bytes(buffer.getvalue())


def measure(target: str, options: Mapping[str, Any]) -> tuple[int, float, float]:
    """(records, seconds, peak in MiB) of a scan in a process of its own."""
    command = [sys.executable, "-c", _SCAN, target, json.dumps(options)]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    records, seconds, peak = json.loads(done.stdout)
    return records, seconds, peak


def main() -> None:
    """Write what is to be listed, list it, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where to write; default: a temporary folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        sources: dict[str, tuple[str, Mapping[str, Any]]] = {}
        if arguments.rows:
            sources |= write_tables(Path(name), arguments.rows)
        if arguments.files:
            sources |= write_tree(Path(name), arguments.files)
        print(f"{machine()}\n\n| scan of | records | s | peak, MiB |\n| --- | --- | --- | --- |")
        for source, (target, options) in sources.items():
            records, seconds, peak = measure(target, options)
            print(f"| {source} | {records:,} | {seconds:.1f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
