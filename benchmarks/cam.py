"""GradCAM of 1 to 1,000 classes against pytorch-grad-cam: goals 1 and 2 of the engine.

    python -m benchmarks.cam [--batch 4] [--rounds 7] [--threads 1]

Float32, random weights and images, forward pass included. The reference is one call for each
class, so its time is proportional to them: for 100 and 1,000 classes that of 5 is scaled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pytorch_grad_cam import GradCAM as UsualGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from artifactgen.artifacts.gradcam import GradCAM
from artifactgen.artifacts.kind import BoundArtifact
from benchmarks.cases import CONVNEXT, MEAN_POOLED, RESNET, VIT_S, Case, arguments, make_case
from benchmarks.reference import reshape_transform
from benchmarks.timing import Work, interleave, machine, peak_growth_mb

CLASS_COUNTS: Mapping[str, Sequence[int]] = {
    VIT_S: (1, 5, 100, 1000),
    RESNET: (1, 5, 100, 1000),
    CONVNEXT: (1, 5, 100, 1000),
    MEAN_POOLED: (1, 5, 100),
}
MEASURED = 5
"""The most classes of which the reference is measured; more are scaled."""
HEAD = (
    "| model, route | classes | pytorch-grad-cam, ms | ours, ms | times faster | above one F "
    "| peak, MB |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
)


def usual_gradcam(case: Case, layer: str, classes: Sequence[int]) -> Work:
    """pytorch-grad-cam as its readme has it: one call for each class, the batch in each."""
    reshape = reshape_transform(case.model, (14, 14))

    def work() -> None:
        case.model.requires_grad_(True)
        with UsualGradCAM(case.model, [case.model.get_submodule(layer)], reshape) as cam:
            for index in classes:
                cam(case.x_BCHW, [ClassifierOutputTarget(index)] * len(case.x_BCHW))
        case.model.requires_grad_(False).zero_grad()

    return work


def rows(title: str, case: Case, *, rounds: int) -> list[str]:
    """A row of the table for each number of classes."""
    counts = CLASS_COUNTS[title]
    bound = {k: case.settled({"gradcam": GradCAM(target_classes=list(range(k)))}) for k in counts}
    described = bound[1]["gradcam"].describe()
    layer = str(described["layer"])
    usual = {k: usual_gradcam(case, layer, range(k)) for k in counts if k <= MEASURED}
    ways: dict[str, Work] = {"plain": case.plain}
    ways |= {f"usual {k}": work for k, work in usual.items()}
    ways |= {f"ours {k}": case.ours(bound[k]) for k in counts}
    timings = interleave(ways, rounds=rounds)
    cells = []
    for k in counts:
        measured = min(k, MEASURED)
        usual_s = timings.median_s(f"usual {measured}") * k / measured
        speedup = k / measured / timings.ratio(f"ours {k}", over=f"usual {measured}")
        above = timings.ratio(f"ours {k}", over="plain") - 1
        cells.append(
            f"| {title}, `{described['route']}` | {k:,} | {1000 * usual_s:,.0f}"
            f"{' (scaled)' if k > measured else ''} | {1000 * timings.median_s(f'ours {k}'):,.0f} "
            f"| {speedup:,.1f} | {above:+.3f} | {_peak_mb(case, bound[k]):,.0f} |"
        )
    return cells


def _peak_mb(case: Case, bound: Mapping[str, BoundArtifact]) -> float:
    return peak_growth_mb(case.ours(bound))


def main() -> None:
    """Print the table."""
    options = arguments(__doc__, rounds=7)
    torch.set_num_threads(options.threads)
    print(HEAD, flush=True)
    for title in CLASS_COUNTS:
        case = make_case(title, batch=options.batch)
        print("\n".join(rows(title, case, rounds=options.rounds)), flush=True)
    print(f"\nBatch of {options.batch}. {machine('grad-cam')}.")


if __name__ == "__main__":
    main()
