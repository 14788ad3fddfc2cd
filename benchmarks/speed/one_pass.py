"""Embeddings, GradCAM and attention together against a plain forward pass: goal 4 of the engine.

    python -m benchmarks.speed.one_pass [--batch 4] [--rounds 15] [--threads 1]

Float32, random weights and images; GradCAM of 5 classes, attention of the last block.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from artifactgen.artifacts.attention import AttentionMaps
from artifactgen.artifacts.base import Artifact
from artifactgen.artifacts.cam.gradcam import GradCAM
from artifactgen.artifacts.embedding import Embedding
from benchmarks.speed.models import (
    CONVNEXT,
    MEAN_POOLED,
    RESNET,
    VIT_B,
    VIT_S,
    Case,
    arguments,
    make_case,
)
from benchmarks.speed.timing import Work, interleave, machine

KINDS: Mapping[str, Artifact] = {
    "embeddings": Embedding(),
    "gradcam": GradCAM(target_classes=list(range(5))),
    "attention": AttentionMaps(),
}


def row(title: str, case: Case, *, rounds: int) -> str:
    """Times of embeddings alone and of everything, in units of the plain forward pass."""
    everything = case.calibrated(KINDS)
    ways: dict[str, Work] = {
        "plain": case.plain,
        "embeddings": case.ours({"embeddings": everything["embeddings"]}),
        "everything": case.ours(everything),
    }
    timings = interleave(ways, rounds=rounds)
    cells = [f"{timings.ratio(way, over='plain'):.3f}" for way in ("embeddings", "everything")]
    route = everything["gradcam"].resolved()["route"]
    kinds = " + ".join(everything)
    plain_ms = 1000 * timings.median_s("plain")
    return f"| {title}, `{route}` | {plain_ms:,.0f} ms | {' | '.join(cells)} | {kinds} |"


def main() -> None:
    """Print the table."""
    options = arguments(__doc__, rounds=15)
    torch.set_num_threads(options.threads)
    print("| model, route | plain forward | embeddings | everything | which is |")
    print("| --- | ---: | ---: | ---: | --- |")
    for title in (VIT_S, VIT_B, RESNET, CONVNEXT, MEAN_POOLED):
        case = make_case(title, batch=options.batch)
        print(row(title, case, rounds=options.rounds), flush=True)
    print(f"\nBatch of {options.batch}. {machine()}.")


if __name__ == "__main__":
    main()
