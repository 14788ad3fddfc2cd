"""The table of `docs/models.md`: every module of timm against the references.

    python -m benchmarks.exactness.conformance

Random weights and images, float32; see `cases.json` for what is expected and `checks.py` for what
is compared.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from datetime import date

import torch

from benchmarks.exactness.cases import Case, cases
from benchmarks.exactness.checks import Outcome, check
from benchmarks.exactness.page import PAGE, versions, write_section
from benchmarks.exactness.unfused import Shown

HEADING = "Architectures of timm"
_QUERIES = {"class": "class token", "pool": "pooling query", "patches": "mean over patches"}


def main() -> None:
    """Run every architecture and write its section of the page."""
    torch.set_num_threads(1)
    started = time.monotonic()
    rows = [(case, _timed(case)) for case in cases()]
    write_section(HEADING, _section(rows, time.monotonic() - started))
    print(f"{PAGE}: {len(rows)} models")
    if missed := [case.family for case, outcome in rows if not outcome.meets(case)]:
        raise SystemExit(f"Not as expected: {', '.join(missed)}")


def _timed(case: Case) -> Outcome:
    started = time.monotonic()
    outcome = check(case)
    print(f"{case.family}: {time.monotonic() - started:.1f} s", flush=True)
    return outcome


def _section(rows: list[tuple[Case, Outcome]], seconds: float) -> Iterator[str]:
    of = versions("torch", "timm", "grad-cam")
    yield from _INTRODUCTION.strip().splitlines()
    yield ""
    yield (
        f"`python -m benchmarks.exactness.conformance`, {date.today()}, {of}, float32, "
        f"one thread, {seconds / 60:.0f} minutes. {_summary(rows)}"
    )
    yield ""
    yield (
        "| family | timm module | model | embedding | GradCAM layer | route | GradCAM "
        "| attention shown | attention |"
    )
    yield "| --- | --- | --- | ---: | --- | --- | ---: | --- | ---: |"
    for case, outcome in rows:
        yield f"| {' | '.join(_cells(case, outcome))} |"


def _summary(rows: list[tuple[Case, Outcome]]) -> str:
    routes = Counter(outcome.route for _, outcome in rows)
    by_route = ", ".join(f"{count} by `{route}`" for route, count in routes.most_common())
    unsupported = sum(isinstance(outcome.attention, str) for _, outcome in rows)
    modules = len({case.module for case, _ in rows})
    return (
        f"{len(rows)} models of {modules} modules: embeddings of all; GradCAM of all, {by_route}; "
        f"attention of {len(rows) - unsupported}, {unsupported} have none to show."
    )


def _cells(case: Case, outcome: Outcome) -> Iterator[str]:
    yield case.family
    yield case.module
    yield f"`{case.title}`"
    yield f"{outcome.embedding:.0e}"
    yield f"`{outcome.layer}`"
    yield outcome.route
    yield f"{outcome.gradcam:.0e}"
    if isinstance(outcome.attention, str) or isinstance(case.attention, str):
        yield f"none: {outcome.attention}"
        yield ""
    else:
        yield "; ".join(describe(shown) for shown in case.attention.values())
        yield f"{max(outcome.attention.values()):.0e}"


def describe(shown: Shown) -> str:
    """What a picture of attention shows, as a cell."""
    height, width = shown.grid
    text = f"`{shown.layer}`: {shown.heads} heads, {height} × {width}, "
    text += _QUERIES[shown.query]
    if shown.windows is None:
        return text
    moved = ", shifted" if any(shown.windows.shift) else ""
    size = "{} × {}".format(*shown.windows.size)
    return f"{text}, {'grids' if shown.windows.by == 'grid' else 'windows'} of {size}{moved}"


_INTRODUCTION = """
Any model of timm works without settings: where to look is found out by one image that goes through
it. This table holds the results against references, for at least one model of each of timm's model
modules, with random weights (norms, biases and tokens too) and at small input sizes:

- *embedding*: largest absolute deviation from
  `forward_head(forward_features(x), pre_logits=True)`.
- *GradCAM*: largest absolute deviation from `GradCAM` of pytorch-grad-cam on the same layer for
  three classes, after its own scaling to [0, 1]. The route is the way in which it is computed:
  `pooled` and `class_token` are closed forms, `tail` is autograd behind the layer.
- *attention*: largest absolute deviation from the softmax of the same model without fused
  attention. Some models are looked at in several blocks; `attention.layers` chooses them. *mean
  over patches* is the mean over the rows of all positions of the image. Where a model attends
  within windows, the row of a position is zero outside of its own window, so that this mean has
  the same meaning; what goes to padding is not shown.

That positions are in the order of the image is checked apart from that: parts of an image are
changed, and each must change most the positions that stand for it. A few last layers are left out
of this check, in which with random weights every position sees all of the image alike.
"""


if __name__ == "__main__":
    main()
