"""What bf16 autocast does to embeddings and maps: their distance from those in float32.

    python -m benchmarks.exactness.precision [--batch 16] [--threads 1]

Random weights and images. Deviations are those of rows scaled to [0, 1]: each map of GradCAM (5
classes), each head of the last block's attention, each embedding.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from artifactgen.artifacts.base import BoundArtifact
from benchmarks.speed.models import RESNET, VIT_S, Case, arguments, make_case
from benchmarks.speed.one_pass import KINDS
from benchmarks.speed.timing import machine


def compare(case: Case) -> dict[str, tuple[float, float, float]]:
    """For each array: median and lowest correlation over maps, and the largest deviation."""
    bound = case.calibrated(KINDS)
    exact, rough = _vectors(case, bound), _vectors(case, bound, bf16=True)
    result = {}
    for name in exact:
        pairs = zip(exact[name], rough[name], strict=True)
        correlations = [np.corrcoef(a, b)[0, 1] for a, b in pairs if np.ptp(a) and np.ptp(b)]
        deviation = float(np.abs(_scaled(exact[name]) - _scaled(rough[name])).max())
        result[name] = float(np.median(correlations)), float(min(correlations)), deviation
    return result


def _vectors(
    case: Case, bound: Mapping[str, BoundArtifact], *, bf16: bool = False
) -> dict[str, NDArray[np.float32]]:
    """Every map, or embedding, as a row."""
    tensors = case.ours(bound, bf16=bf16)()
    wanted = {"embeddings": 1, "gradcam": 2, "attention": 3}
    return {
        name: tensors[name].float().flatten(dims).flatten(0, dims - 1).numpy()
        for name, dims in wanted.items()
        if name in tensors
    }


def _scaled(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row to [0, 1]."""
    low, high = rows.min(1, keepdims=True), rows.max(1, keepdims=True)
    scaled: NDArray[np.float32] = (rows - low) / np.maximum(high - low, 1e-12)
    return scaled


def main() -> None:
    """Print the table."""
    options = arguments(__doc__, batch=16)
    torch.set_num_threads(options.threads)
    print("| model | array | correlation, median | correlation, lowest | largest deviation |")
    print("| --- | --- | ---: | ---: | ---: |")
    for title in (VIT_S, RESNET):
        case = make_case(title, batch=options.batch)
        for name, cells in compare(case).items():
            median, lowest, deviation = cells
            print(f"| {title} | {name} | {median:.5f} | {lowest:.5f} | {deviation:.3f} |")
    print(f"\nBatch of {options.batch}. {machine()}.")


if __name__ == "__main__":
    main()
