"""Whole runs beside processes that take the CPU and the memory: the same bytes every time.

    PYTHONPATH=.:tests python -m chaos.same_bytes --runs 50

Every second run is on Ray. Attention figures of twelve heads at full size are compared, each over
256 kB, with the GradCAM pictures and the `.pt` files. Prints a table; where a file differs, both
are kept below `--folder`, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import timm
import torch
from helpers.workspace import artifacts

LARGE_BYTES = 256 * 1024
"""Where compression once went another way."""
WAYS = {
    "in one process": ("cluster=inline",),
    "Ray, 2 workers": ("cluster=ray", "cluster.workers=2"),
}
_RECORDS = {"train": 6, "val": 2}
_PIXELS = 224
_MODEL = {"depth": 2, "num_heads": 12}

_EXPERIMENT = """\
# @package _global_
defaults:
  - embeddings/default
  - override /model: timm
  - override /data: hdf5
  - _self_
model:
  backbone: vit_tiny_patch16_224
  options: {{depth: {depth}, num_heads: {num_heads}}}
data:
  path: {path}
  batch_size: 2
cluster:
  threads_per_worker: 1
splits: [train, val]
"""

_BURN = "while True: pass"
_FILL = """
import sys, time
while True:
    held = bytearray(int(sys.argv[1]))
    held[::4096] = b"x" * len(held[::4096])
    time.sleep(0.2)
    del held
"""
_HELD_BYTES = 2 * 1024**3


@dataclass(slots=True)
class Tally:
    """What came of the runs of one way."""

    runs: int = 0
    exact: int = 0
    files: int = 0
    large: int = 0
    differing: list[str] = field(default_factory=list)


def main(arguments: list[str] | None = None) -> int:
    """Run, compare, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=50, help="in all, every second one on Ray")
    parser.add_argument("--folder", type=Path, help="of what differs; default: temporary")
    options = parser.parse_args(arguments)
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="same-bytes-", dir=options.folder))
    tallies = compare_runs(folder, options.runs)
    sys.stdout.write(f"{table(tallies)}\n")
    differing = [name for tally in tallies.values() for name in tally.differing]
    if differing:
        sys.stdout.write(f"\nWhat differs is kept in {folder}: {', '.join(differing)}\n")
        return 1
    shutil.rmtree(folder)
    return 0


def compare_runs(folder: Path, runs: int) -> dict[str, Tally]:
    """Compare runs under load, the ways in turns, with one that had the machine to itself."""
    prepare(folder)
    expected = run(folder, folder / "undisturbed", *WAYS["in one process"])
    tallies = {way: Tally() for way in WAYS}
    with load():
        for number in range(runs):
            way = list(WAYS)[number % len(WAYS)]
            output = folder / f"run-{number:03d}"
            begun = time.monotonic()
            found = run(folder, output, *WAYS[way])
            count(tallies[way], found, expected, f"run-{number:03d}")
            if not tallies[way].differing:
                shutil.rmtree(output)
            seconds = time.monotonic() - begun
            sys.stderr.write(f"{number + 1} of {runs}, {way}: {seconds:.0f} s\n")
    return tallies


def count(tally: Tally, found: dict[str, bytes], expected: dict[str, bytes], name: str) -> None:
    """Add a run to what came of its way."""
    differing = [
        path for path in found.keys() | expected.keys() if found.get(path) != expected.get(path)
    ]
    tally.runs += 1
    tally.exact += not differing
    tally.files += len(found)
    tally.large += sum(len(content) > LARGE_BYTES for content in found.values())
    tally.differing += [f"{name}/{path}" for path in sorted(differing)]


def table(tallies: dict[str, Tally]) -> str:
    """The outcome, as Markdown."""
    lines = [
        "| runs under load | EXACT | files compared | of them over 256 kB | differing |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {way} | {t.exact} of {t.runs} | {t.files} | {t.large} | {len(t.differing)} |"
        for way, t in tallies.items()
    ]
    return "\n".join(lines)


def prepare(folder: Path) -> None:
    """Data, a checkpoint of random weights, and an experiment."""
    rng = np.random.default_rng(0)
    with h5py.File(folder / "images.h5", "w") as file:
        file.attrs["classes"] = ("cat", "dog", "eel")
        for split, records in _RECORDS.items():
            shape = (records, _PIXELS, _PIXELS, 3)
            file[f"{split}/images"] = rng.integers(0, 256, shape, dtype=np.uint8)
            file[f"{split}/labels"] = np.arange(records) % 3
            file[f"{split}/record_ids"] = [f"{split}_{row}" for row in range(records)]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **_MODEL)
    torch.save({"state_dict": model.state_dict()}, folder / "model.pt")
    conf = folder / "conf" / "experiment" / "embeddings"
    conf.mkdir(parents=True)
    text = _EXPERIMENT.format(path=folder / "images.h5", **_MODEL)
    (conf / "same_bytes.yaml").write_text(text)


def run(folder: Path, output: Path, *arguments: str) -> dict[str, bytes]:
    """A whole run of the program as a process of its own; what must be equal of it."""
    command = [
        *(sys.executable, "-m", "distributed.launch", "--config-dir", str(folder / "conf")),
        *("experiment=embeddings/same_bytes", f"ckpt_path={folder / 'model.pt'}"),
        *(f"output_dir={output}", *arguments),
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    return artifacts(output)


@contextmanager
def load() -> Iterator[None]:
    """A process for each core that only computes, and one that takes and gives back memory.

    They are nice: a run takes the time of two or three, and its threads are interrupted at any
    point.
    """
    burners = [[sys.executable, "-c", _BURN]] * (os.cpu_count() or 1)
    fillers = [[sys.executable, "-c", _FILL, str(_HELD_BYTES)]]
    processes = [subprocess.Popen(["nice", *command]) for command in burners + fillers]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
