"""The second table of `docs/models.md`: families beside timm, against the users' own models.

    python -m benchmarks.exactness.families

Small models with random weights and images, float32: saved as their library saves them, loaded as
the program loads a checkpoint, and compared with what the library itself computes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

from artifactgen.artifacts.attention import AttentionMaps
from artifactgen.artifacts.base import Subject
from artifactgen.artifacts.cam.gradcam import GradCAM
from artifactgen.artifacts.embedding import Embedding
from artifactgen.errors import UnsupportedError
from artifactgen.models.checkpoint import read_checkpoint
from artifactgen.models.file import identify
from artifactgen.models.loading import load_model
from artifactgen.models.stated import read_stated
from artifactgen.rendering.overlay import scale_cam
from benchmarks.exactness import reference
from benchmarks.exactness.checks import calibrated, compute, deviation
from benchmarks.exactness.conformance import describe
from benchmarks.exactness.family_cases import CASES, Case
from benchmarks.exactness.page import PAGE, versions, write_section
from benchmarks.exactness.trained import CLASSES, Trained
from benchmarks.exactness.unfused import unfused_weights

HEADING = "The other families"
BATCH = 3
WITHIN = {"embedding": 1e-5, "gradcam": 1e-4, "attention": 1e-5}
"""What the program promises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What a model gave; largest absolute deviations."""

    case: Case
    family: str
    embedding: float
    layer: str
    route: str
    gradcam: float
    attention: float | None

    def meets(self) -> bool:
        """Whether all is within what the program promises."""
        return all((getattr(self, name) or 0.0) <= bound for name, bound in WITHIN.items())


def main() -> None:
    """Compare every model and write its row of the page."""
    torch.set_num_threads(1)
    rows = [check(case) for case in CASES]
    write_section(HEADING, _section(rows))
    print(f"{PAGE}: {len(rows)} models")
    if missed := [row.case.title for row in rows if not row.meets()]:
        raise SystemExit(f"Not as promised: {', '.join(missed)}")


def check(case: Case) -> Row:
    """Load a model as the program does, and compare it with the user's own."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        trained = case.make(Path(folder))
        subject = _loaded(trained)
    size = subject.image_size
    x_BCHW = reference.random_images(BATCH, size=size, seed=1)
    embedding = compute(subject, Embedding().bind(subject), x_BCHW)["embeddings"]
    cam = calibrated(subject, GradCAM(), x_BCHW)
    ours = scale_cam(compute(subject, cam, x_BCHW)["gradcam"].numpy(), size)
    theirs = reference.pytorch_grad_cam(
        trained.model, f"model.{cam.layer}", x_BCHW, range(CLASSES), reshape=case.layout
    )
    assert (theirs.max((-2, -1)) > 0).mean() > 0.5, "empty maps agree about nothing"
    with torch.no_grad():
        expected = trained.embed(x_BCHW)
    return Row(
        case=case,
        family=type(trained.family).__name__.lower(),
        embedding=deviation(embedding, expected),
        layer=cam.layer,
        route=cam.resolved()["route"],
        gradcam=deviation(ours, theirs),
        attention=_attention(case, subject, trained, x_BCHW),
    )


def _loaded(trained: Trained) -> Subject:
    checkpoint = read_checkpoint(identify(trained.checkpoint))
    stated = read_stated(checkpoint, trained.family)
    loaded = load_model(trained.family, checkpoint, stated=stated)
    classes = tuple(map(str, range(CLASSES)))
    size = loaded.network.family.input_size()
    return Subject(loaded.network, size, classes, has_head=loaded.has_head)


def _attention(
    case: Case, subject: Subject, trained: Trained, x_BCHW: torch.Tensor
) -> float | None:
    if case.attention is None:
        try:
            AttentionMaps().bind(subject)
        except UnsupportedError:
            return None
        raise AssertionError(f"{case.title}: attention that was not expected")
    bound = AttentionMaps().bind(subject)
    assert [site.path for site in bound.sites] == [case.attention.layer]
    (weights,) = unfused_weights(trained.model, x_BCHW)[f"model.{case.attention.layer}"]
    ours = compute(subject, bound, x_BCHW)["attention"][:, 0]
    return deviation(ours, case.attention.expected(weights, BATCH))


def _section(rows: list[Row]) -> Iterator[str]:
    of = versions("torch", "torchvision", "transformers", "lightning", "grad-cam")
    yield from _INTRODUCTION.strip().splitlines()
    yield ""
    yield f"`python -m benchmarks.exactness.families`, {date.today()}, {of}, float32, one thread."
    yield ""
    yield (
        "| `model=` | model | embedding | GradCAM layer | route | GradCAM | attention shown "
        "| attention |"
    )
    yield "| --- | --- | ---: | --- | --- | ---: | --- | ---: |"
    for row in rows:
        yield f"| {' | '.join(_cells(row))} |"


def _cells(row: Row) -> Iterator[str]:
    yield f"`{row.family}`"
    yield row.case.title
    yield f"{row.embedding:.0e}"
    yield f"`{row.layer}`"
    yield row.route
    yield f"{row.gradcam:.0e}"
    if row.case.attention is None or row.attention is None:
        yield "none: it computes no attention"
        yield ""
    else:
        yield describe(row.case.attention)
        yield f"{row.attention:.0e}"


_INTRODUCTION = """
Small models with random weights, saved as their library saves them and loaded like any checkpoint,
against the same model in the hands of its library:

- *embedding*: largest absolute deviation from what the model's own classifier gets; with text
  vectors, from `get_image_features`.
- *GradCAM*: as above, for all five classes, of the model itself (with texts: of
  `logits_per_image`).
- *attention*: from the softmax of `attn_implementation="eager"`; of torch's own layers, from the
  documented formula in place of the fused one.
"""


if __name__ == "__main__":
    main()
