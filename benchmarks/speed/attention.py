"""Attention maps against a plain forward pass with fused attention: goal 3 of the engine.

    python -m benchmarks.speed.attention [--batch 4] [--rounds 15] [--threads 1]

Float32, random weights and images.
"""

from __future__ import annotations

from typing import Any

import torch

from artifactgen.artifacts.attention import AttentionMaps
from benchmarks.speed.models import MEAN_POOLED, VIT_B, VIT_S, Case, arguments, make_case
from benchmarks.speed.timing import Work, interleave, machine

ALL_BLOCKS = tuple(range(12))
KINDS = {
    "last block": AttentionMaps(),
    "all 12 blocks": AttentionMaps(layers=ALL_BLOCKS),
    "rollout": AttentionMaps(method="rollout"),
}


def unfused(case: Case) -> Work:
    """A plain forward pass that computes the softmax of every block, as a hook on it needs it."""
    layers: list[Any] = [m for m in case.model.modules() if hasattr(m, "fused_attn")]

    def work() -> None:
        for layer in layers:
            layer.fused_attn = False
        case.plain()
        for layer in layers:
            layer.fused_attn = True

    return work


def row(title: str, case: Case, *, rounds: int) -> str:
    """Times of each kind in units of the plain forward pass."""
    ways: dict[str, Work] = {"plain": case.plain, "unfused": unfused(case)}
    ways |= {name: case.ours(case.calibrated({"attention": kind})) for name, kind in KINDS.items()}
    timings = interleave(ways, rounds=rounds)
    cells = [f"{timings.ratio(way, over='plain'):.3f}" for way in (*KINDS, "unfused")]
    return f"| {title} | {1000 * timings.median_s('plain'):,.0f} ms | {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    options = arguments(__doc__, rounds=15)
    torch.set_num_threads(options.threads)
    print(
        "| model | plain forward | last block | all 12 blocks | rollout | unfused, nothing kept |"
    )
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for title in (VIT_S, MEAN_POOLED, VIT_B):
        case = make_case(title, batch=options.batch)
        print(row(title, case, rounds=options.rounds), flush=True)
    print(f"\nBatch of {options.batch}. {machine()}.")


if __name__ == "__main__":
    main()
