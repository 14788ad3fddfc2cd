"""The worker end to end, from uint8 images in HDF5 to committed files, and how busy its GPU is."""

from __future__ import annotations

import argparse
import statistics
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from artifactgen.artifacts.base import Artifact
from artifactgen.data.hdf5 import Hdf5
from artifactgen.engine import Normalization
from artifactgen.job import Job
from artifactgen.labels import match_labels
from artifactgen.models.checkpoint import read_checkpoint
from artifactgen.models.file import identify
from artifactgen.models.loading import load_model
from artifactgen.models.timm import Timm
from artifactgen.preflight import preflight
from artifactgen.types import Shard, Task
from artifactgen.worker import Worker
from benchmarks.speed.models import CLASSES, IMAGE_SIZE, MODELS, make_model
from benchmarks.speed.timing import now_s

NAMES = tuple(str(index) for index in range(CLASSES))
_SAMPLES_PER_S = 20


@dataclass(frozen=True, slots=True)
class Rate:
    """Images per second, and the share of the time that the GPU computed."""

    images_per_s: float
    busy: float | None = None

    def cell(self, bare: Rate) -> str:
        """The rate, and how large it is by the bare loop's."""
        return f"{self.images_per_s:,.0f} ({self.images_per_s / bare.images_per_s:.3f})"

    @property
    def busy_cell(self) -> str:
        return "unknown" if self.busy is None else f"{self.busy:.0%}"


def end_to_end(job: Job, options: argparse.Namespace, *, images: int) -> Rate:
    """Images per second of a worker in its steady state.

    What comes once for each worker, loading and compiling, is done before with one batch.
    """
    loaded = load_model(job.model, read_checkpoint(job.checkpoint))
    ready = preflight(job, loaded)
    worker = Worker(ready.job, ready.take_assembly())
    worker(Task("train", Shard("train", 0, 0, min(options.batch, images))))
    task = Task("train", Shard("train", 1, 0, images))
    seconds = []
    with busy_share(options.device) as busy:
        for _ in range(max(1, options.rounds // 2)):
            start = now_s()
            receipt = worker(task)
            seconds.append(now_s() - start)
            assert receipt.records == images, receipt.failures[:1]
    return Rate(images / statistics.median(seconds), busy())


def make_job(
    title: str, kinds: Mapping[str, Artifact], images: Path, options: argparse.Namespace
) -> Job:
    """A job on those images with random weights."""
    source: Any = Hdf5(path=str(images), image_size=IMAGE_SIZE, classes=NAMES)
    checkpoint = images.with_name("random.pt")
    torch.save(make_model(title).state_dict(), checkpoint)
    on_gpu = options.device == "cuda"
    return Job(
        source=source,
        catalog=source.scan(),
        model=Timm(backbone=MODELS[title][0], num_classes=CLASSES, image_size=IMAGE_SIZE),
        checkpoint=identify(checkpoint),
        classes=NAMES,
        labels=match_labels(NAMES, NAMES, are_named=True, outputs_are_named=True),
        normalization=Normalization((0.5,) * 3, (0.25,) * 3),
        artifacts=kinds,
        output_dir=images.with_name("-".join(kinds)),
        fingerprint="0" * 64,
        batch_size=options.batch,
        reader_threads=options.readers,
        accelerator="gpu" if on_gpu else "cpu",
        precision="bf16-mixed" if on_gpu else "32-true",
        compiled=options.compiled,
    )


def write_images(path: Path, count: int) -> Path:
    """Random uint8 images, (N, H, W, 3), one chunk each, not compressed."""
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        shape = (count, *IMAGE_SIZE, 3)
        images = file.create_dataset("train/images", shape, "u1", chunks=(1, *shape[1:]))
        for row in range(count):
            images[row] = random.integers(0, 256, shape[1:], dtype=np.uint8)
        file["train/labels"] = np.arange(count) % CLASSES
        file["train/record_ids"] = [f"image_{row:07d}" for row in range(count)]
    return path


@contextmanager
def busy_share(device: str) -> Iterator[Callable[[], float | None]]:
    """The share of the time in which a kernel ran, by NVML; None where it cannot be told.

    NVML counts over a sixth of a second to a second, so it takes some seconds of work:
    https://docs.nvidia.com/deploy/nvml-api/structnvmlUtilization__t.html
    """
    percents: list[int] = []
    done = threading.Event()

    def sample() -> None:
        while not done.wait(1 / _SAMPLES_PER_S):
            percents.append(torch.cuda.utilization())

    thread = threading.Thread(target=sample, daemon=True)
    if device == "cuda" and _has_nvml():
        thread.start()
    try:
        yield lambda: statistics.mean(percents) / 100 if percents else None
    finally:
        done.set()
        if thread.is_alive():
            thread.join()


def _has_nvml() -> bool:
    try:
        torch.cuda.utilization()
    except (ModuleNotFoundError, RuntimeError):
        return False
    return True
