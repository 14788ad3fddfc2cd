"""What looking twice costs: the first look before a run, and the checksums of pictures on resume.

    python -m benchmarks.speed.checks

Each against the same thing without the look, turn by turn in one process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from artifactgen.artifacts.base import Subject
from artifactgen.engine import Engine, Normalization
from artifactgen.introspect.taps import Taps
from artifactgen.models.timm import as_network
from artifactgen.store.ledger import has_size
from artifactgen.store.shardfile import Picture
from benchmarks.exactness.reference import random_model
from benchmarks.speed.timing import Timings, interleave, machine

ROUNDS = 5
MODEL, SIZE = "vit_small_patch16_224", (224, 224)
BEFORE, MORE, BATCH = 4, 28, 8
PICTURES, PICTURE_BYTES, READERS = 500, 860_000, 16


def main() -> None:
    """Print the table."""
    print("| what | without | with | ratio |\n| --- | ---: | ---: | ---: |")
    print(_row(f"pass of the first {BEFORE} records of {MODEL}; and of {MORE} more", first_look()))
    with tempfile.TemporaryDirectory() as folder:
        what = f"sizes of {PICTURES} figures of 860 kB; and checksums, {READERS} readers"
        print(_row(what, resume(Path(folder))))
    print(f"\n{machine()}")


def _row(what: str, timings: Timings) -> str:
    medians = (f"{timings.median_s(way):.3f} s" for way in ("without", "with"))
    return f"| {what} | {' | '.join(medians)} | {timings.ratio('with', over='without'):.1f} |"


def first_look() -> Timings:
    """The batch that a preflight has in any case; and the further ones of the first look."""
    torch.set_num_threads(2)
    subject = Subject(as_network(random_model(MODEL, classes=5)), SIZE, tuple("abcde"), True)
    normalization = Normalization((0.5,), (0.25,))
    engine = Engine(subject, {}, torch.device("cpu"), "32-true", normalization)
    images = np.zeros((MORE, 3, *SIZE), np.uint8)

    def without() -> None:
        engine.forward(images[:BEFORE], Taps())

    def with_look() -> None:
        without()
        for start in range(0, MORE, BATCH):
            engine.forward(images[start : start + BATCH], Taps())

    return interleave({"without": without, "with": with_look}, rounds=ROUNDS)


def resume(folder: Path) -> Timings:
    """The sizes of pictures alone; and what they hold."""
    content = np.random.default_rng(0).integers(0, 256, PICTURE_BYTES, dtype=np.uint8).tobytes()
    picture = Picture.of(content)
    paths = [folder / f"{index}.png" for index in range(PICTURES)]
    for path in paths:
        path.write_bytes(content)

    def check(is_same: Callable[[Path], bool]) -> None:
        with ThreadPoolExecutor(READERS) as pool:
            assert all(pool.map(is_same, paths))

    ways = {
        "without": lambda: check(lambda path: has_size(path, PICTURE_BYTES)),
        "with": lambda: check(lambda path: Picture.of(path.read_bytes()) == picture),
    }
    return interleave(ways, rounds=ROUNDS)


if __name__ == "__main__":
    main()
