"""Two nodes of SLURM against one: records per second, and seconds until the first shard.

    slurm/dev/run .venv/bin/python -m benchmarks.speed.nodes

Each node has one worker with one thread, so that two take both cores of a small machine. The rate
is that between the first and the last commit: the start of a job, of Ray and of the workers is not
in it, and is told apart.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch

from artifactgen.store.atomic import read_json
from artifactgen.store.layout import Layout
from benchmarks.exactness import reference
from distributed.slurm.submissions import submissions

BACKBONE, SIZE, CLASSES = "vit_tiny_patch16_224", 224, 5
RECORDS, BATCH, RUNS = 384, 4, 3


@dataclass(frozen=True, slots=True)
class Measured:
    """One run."""

    per_second: float
    """Records, between the first and the last commit."""
    start_s: float
    """From the start of the job to its first commit."""


def make_task(folder: Path) -> list[str]:
    """Random images and a model of random weights; the options that name them."""
    images = np.random.default_rng(0).integers(0, 256, (RECORDS, SIZE, SIZE, 3), dtype=np.uint8)
    with h5py.File(folder / "images.h5", "w") as file:
        file["test/images"] = images
    model = reference.random_model(BACKBONE, classes=CLASSES)
    torch.save(model.state_dict(), folder / "model.pth")
    return [
        *("experiment=embeddings/default", "model=timm", "data=hdf5", "splits=[test]"),
        *(f"model.backbone={BACKBONE}", f"model.num_classes={CLASSES}", "model.options={}"),
        *(f"data.path={folder}/images.h5", f"ckpt_path={folder}/model.pth"),
        *(f"data.batch_size={BATCH}", "data.num_workers=1", "precision=32-true"),
        "cluster.threads_per_worker=1",
    ]


def on_nodes(nodes: int) -> list[str]:
    """The options that submit a run."""
    launcher = {"nodes": nodes, "cpus_per_task": 1, "timeout_min": 30}
    settings = [f"hydra.launcher.{name}={value}" for name, value in launcher.items()]
    return ["hydra/launcher=submitit_slurm", *settings]


def measure(options: Sequence[str], output: Path) -> Measured:
    """Run the program as a user does, and read from its files how it went."""
    command = [sys.executable, "-m", "distributed.launch", *options, f"output_dir={output}"]
    subprocess.run(command, check=True, capture_output=True, cwd=output.parent)
    entries = output.glob(".artifactgen/scopes/test/ledger/*.json")
    commits = sorted((entry.stat().st_mtime, read_json(entry)["records"]) for entry in entries)
    (first, of_first), (last, _) = commits[0], commits[-1]
    records = sum(records for _, records in commits) - of_first
    (job,) = submissions(Layout(output))
    return Measured(records / (last - first), first - _started(job.job_id))


def _started(job_id: str) -> float:
    """When a job was started, in seconds since the epoch."""
    asked = ["squeue", "--noheader", "--states=all", f"--jobs={job_id}", "--format=%S"]
    told = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    seconds = subprocess.run(["date", f"--date={told}", "+%s"], check=True, capture_output=True)
    return float(seconds.stdout)


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        task = make_task(folder)
        ways = {"one node": on_nodes(1), "two nodes": on_nodes(2)}
        runs: dict[str, list[Measured]] = {way: [] for way in ways}
        for turn in range(RUNS):
            for way, options in ways.items():
                output = folder / f"{way.replace(' ', '-')}-{turn}"
                runs[way].append(measure([*task, *options], output))
    reference_rate = statistics.median(run.per_second for run in runs["one node"])
    print("| | records/s | against one node | start of the job to the first shard |")
    print("| --- | ---: | ---: | ---: |")
    for way, measured in runs.items():
        rate = statistics.median(run.per_second for run in measured)
        start_s = statistics.median(run.start_s for run in measured)
        print(f"| {way} | {rate:.1f} | {rate / reference_rate:.2f} × | {start_s:.1f} s |")


if __name__ == "__main__":
    main()
