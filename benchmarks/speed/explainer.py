"""`Explainer` against one call of pytorch-grad-cam for each class, as notebooks have it.

    python -m benchmarks.speed.explainer [--batch 4] [--rounds 7] [--threads 1]

Float32, random weights and images, GradCAM of 5 classes. Both get the same model in memory and a
tensor, and give arrays; the first calls, in which `Explainer` looks into the model, are not counted
but shown apart. Ours gives embeddings, probabilities and, of the ViT, attention besides, and maps
at the layer's resolution; `heatmaps` scales them to the images' size, as the library does.
"""

from __future__ import annotations

import torch

from artifactgen import Explainer
from benchmarks.speed.cam import usual_gradcam
from benchmarks.speed.models import RESNET, VIT_S, arguments, make_case
from benchmarks.speed.timing import Work, interleave, machine, now_s

CLASSES = tuple(range(5))
HEAD = (
    "| model, route | pytorch-grad-cam, ms | Explainer, ms | times faster | with heatmaps "
    "| above one F | its first call, ms |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
)


def row(title: str, *, batch: int, rounds: int) -> str:
    """A row of the table."""
    case = make_case(title, batch=batch)
    explain = Explainer(case.model, target_classes=CLASSES)
    start = now_s()
    found = explain(case.x_BCHW).resolved["gradcam"]
    first_s = now_s() - start
    ways: dict[str, Work] = {
        "usual": usual_gradcam(case, str(found["layer"]), CLASSES),
        "plain": case.plain,
        "explainer": lambda: explain(case.x_BCHW),
        "heatmaps": lambda: explain(case.x_BCHW).gradcam_heatmaps,
    }
    timings = interleave(ways, rounds=rounds)
    return (
        f"| {title}, `{found['route']}` | {1000 * timings.median_s('usual'):,.0f} "
        f"| {1000 * timings.median_s('explainer'):,.0f} "
        f"| {timings.ratio('usual', over='explainer'):.1f} "
        f"| {timings.ratio('usual', over='heatmaps'):.1f} "
        f"| {timings.ratio('explainer', over='plain') - 1:+.3f} | {1000 * first_s:,.0f} |"
    )


def main() -> None:
    """Print the table."""
    options = arguments(__doc__, rounds=7)
    torch.set_num_threads(options.threads)
    print(HEAD, flush=True)
    for title in (VIT_S, RESNET):
        print(row(title, batch=options.batch, rounds=options.rounds), flush=True)
    print(f"\nBatch of {options.batch}. {machine('grad-cam')}.")


if __name__ == "__main__":
    main()
