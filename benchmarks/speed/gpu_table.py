"""The table of `benchmarks.speed.gpu`: loops on the device, and the worker from HDF5 to files."""

from __future__ import annotations

import argparse
import gc
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from artifactgen.artifacts.base import Artifact
from artifactgen.artifacts.embedding import Embedding
from artifactgen.device import make_reproducible
from artifactgen.engine import Engine, InFlight, Normalization, is_convolutional
from artifactgen.introspect.compiling import compile_parts
from benchmarks.speed.gpu_worker import Rate, busy_share, end_to_end, make_job, write_images
from benchmarks.speed.models import IMAGE_SIZE, make_case
from benchmarks.speed.one_pass import KINDS
from benchmarks.speed.timing import Work, interleave, machine

EMBEDDINGS: Mapping[str, Artifact] = {"embeddings": Embedding()}
_PICTURES_SHARE = 8
_SETTLING_BATCH = 4
HEAD = (
    "| model | bare loop, img/s | embeddings, host to host | everything, host to host "
    "| GPU busy, bare "
    "| HDF5 → embeddings | GPU busy | HDF5 → everything, with pictures | GPU busy | peak memory |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
)


def print_table(options: argparse.Namespace) -> None:
    """A row for each model."""
    print(HEAD, flush=True)
    for title in options.models:
        print(row(title, options), flush=True)
    print(
        f"\nIn parentheses: relative to the bare loop. {options.images:,} images, batch of "
        f"{options.batch}, compiled: {options.compiled}. {machine('h5py')}."
    )
    if options.device == "cpu":
        print("A rehearsal on the CPU: these numbers say nothing of a GPU.")


def row(title: str, options: argparse.Namespace) -> str:
    """Everything of one model."""
    bare, embeddings, everything = loops(title, options)
    reset_peak()
    with tempfile.TemporaryDirectory() as folder:
        images = write_images(Path(folder) / "images.h5", options.images)
        # Pictures take the CPU so long that fewer of them tell as much.
        limits = (EMBEDDINGS, options.images), (KINDS, max(1, options.images // _PICTURES_SHARE))
        rates = [
            end_to_end(make_job(title, kinds, images, options), options, images=limit)
            for kinds, limit in limits
        ]
    cells = [f"{bare.images_per_s:,.0f}", embeddings.cell(bare), everything.cell(bare)]
    cells += [bare.busy_cell, *(c for rate in rates for c in (rate.cell(bare), rate.busy_cell))]
    return f"| {title} | {' | '.join(cells)} | {peak_gb()} |"


def loops(title: str, options: argparse.Namespace) -> list[Rate]:
    """Bare on the device; embeddings and everything from the host's memory and back to it."""
    make_reproducible()
    ways = {
        "bare": bare_loop(title, options),
        "embeddings": our_loop(title, EMBEDDINGS, options),
        "everything": our_loop(title, KINDS, options),
    }
    timings = interleave(ways, rounds=options.rounds)
    with busy_share(options.device) as busy:
        for _ in range(options.rounds):
            ways["bare"]()
    images, shares = options.batch * options.batches, {"bare": busy()}
    return [Rate(images / timings.median_s(way), shares.get(way)) for way in ways]


def repeated(work: Work, options: argparse.Namespace) -> Work:
    """A round: so many batches, to the end of the last."""

    def run() -> None:
        for _ in range(options.batches):
            work()
        if options.device == "cuda":
            torch.cuda.synchronize()

    return run


def bare_loop(title: str, options: argparse.Namespace) -> Work:
    """The reference: free of what a worker sets for equal bytes, which would slow it down."""
    case = make_case(title, batch=options.batch).to(torch.device(options.device))
    model: Callable[..., Any] = case.model
    if options.compiled:
        model = torch.compile(case.model, dynamic=False)

    def work() -> None:
        bf16 = torch.autocast(options.device, torch.bfloat16, enabled=options.device == "cuda")
        with torch.inference_mode(), bf16:
            model(case.x_BCHW)

    batches = repeated(work, options)

    def run() -> None:
        torch.use_deterministic_algorithms(False)
        try:
            batches()
        finally:
            make_reproducible()

    return run


def our_loop(title: str, kinds: Mapping[str, Artifact], options: argparse.Namespace) -> Work:
    """A round as a worker does it: uint8 images up, arrays down, the next batch begun before."""
    engine = make_engine(title, kinds, options)
    shape = (options.batch, 3, *IMAGE_SIZE)
    images_BCHW = np.random.default_rng(0).integers(0, 256, shape, np.uint8)

    def run() -> None:
        before: InFlight | None = None
        for _ in range(options.batches):
            started = engine.start(images_BCHW)
            if before is not None:
                before.arrays()
            before = started
        if before is not None:
            before.arrays()

    return run


def make_engine(title: str, kinds: Mapping[str, Artifact], options: argparse.Namespace) -> Engine:
    """The engine of a worker, settled on the CPU as the preflight does it."""
    case = make_case(title, batch=_SETTLING_BATCH)
    bound = case.calibrated(kinds)
    device, on_gpu = torch.device(options.device), options.device == "cuda"
    engine = Engine(
        case.to(device).subject,
        bound,
        device,
        "bf16-mixed" if on_gpu else "32-true",
        Normalization((0.5,) * 3, (0.25,) * 3),
        fixed_batch=options.batch if options.compiled else None,
        channels_last=is_convolutional(case.model),
    )
    if options.compiled:
        compile_parts(case.model, engine.taps)
    return engine


def reset_peak() -> None:
    """Measure the peak of the device's memory anew."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gb() -> str:
    """The most that tensors took on the device since `reset_peak`."""
    if not torch.cuda.is_available():
        return "unknown"
    return f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB"
