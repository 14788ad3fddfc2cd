"""GradCAM of 1 to 1,000 classes against pytorch-grad-cam: goals 1 and 2 of the engine.

    python -m benchmarks.speed.cam [--batch 4] [--rounds 7] [--threads 1]

Float32, random weights and images, forward pass included. The reference is one call for each
class, so its time is proportional to them: for 100 and 1,000 classes that of 5 is scaled. Both are
measured in turns with the plain forward pass, and compared in units of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from pytorch_grad_cam import GradCAM as UsualGradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from artifactgen.artifacts.cam.gradcam import GradCAM
from benchmarks.exactness.reference import reshape_transform
from benchmarks.speed.models import CONVNEXT, MEAN_POOLED, RESNET, VIT_S, Case, arguments, make_case
from benchmarks.speed.timing import Work, interleave, machine, peak_growth_mb

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


@dataclass(frozen=True, slots=True)
class Measured:
    """A number of classes, and what it took; in seconds, F the plain forward pass."""

    classes: int
    usual_s: float
    ours_s: float
    above_f: float
    peak_mb: float

    def row(self, title: str) -> str:
        """A row of the table."""
        scaled = " (scaled)" if self.classes > MEASURED else ""
        return (
            f"| {title} | {self.classes:,} | {1000 * self.usual_s:,.0f}{scaled} "
            f"| {1000 * self.ours_s:,.0f} | {self.usual_s / self.ours_s:,.1f} "
            f"| {self.above_f:+.3f} | {self.peak_mb:,.0f} |"
        )


def rows(title: str, case: Case, *, rounds: int) -> Iterator[str]:
    """A row of the table for each number of classes."""
    counts = CLASS_COUNTS[title]
    bound = {
        k: case.calibrated({"gradcam": GradCAM(target_classes=list(range(k)))}) for k in counts
    }
    described = bound[1]["gradcam"].resolved()
    ways = {k: case.ours(bound[k]) for k in counts}
    timings = interleave({"plain": case.plain, **{str(k): ways[k] for k in counts}}, rounds=rounds)
    # Apart from the others: the memory that it leaves in pieces would slow those that follow.
    usual = {str(k): usual_gradcam(case, str(described["layer"]), range(k)) for k in (1, MEASURED)}
    usual_timings = interleave({"plain": case.plain, **usual}, rounds=max(3, rounds // 3))
    for k in counts:
        above_f = timings.ratio(str(k), over="plain") - 1
        measured = min(k, MEASURED)
        usual_f = usual_timings.ratio(str(measured), over="plain") * k / measured
        plain_s = timings.median_s("plain")
        times = usual_f * plain_s, (1 + above_f) * plain_s
        peak_mb = peak_growth_mb(ways[k])
        yield Measured(k, *times, above_f, peak_mb).row(f"{title}, `{described['route']}`")


def main() -> None:
    """Print the table."""
    options = arguments(__doc__, rounds=7)
    torch.set_num_threads(options.threads)
    print(HEAD, flush=True)
    for title in CLASS_COUNTS:
        case = make_case(title, batch=options.batch)
        for row in rows(title, case, rounds=options.rounds):
            print(row, flush=True)
    print(f"\nBatch of {options.batch}. {machine('grad-cam')}.")


if __name__ == "__main__":
    main()
