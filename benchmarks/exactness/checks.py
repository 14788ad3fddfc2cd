"""One architecture against timm, pytorch-grad-cam and unfused attention, in numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from artifactgen.artifacts.attention import AttentionMaps
from artifactgen.artifacts.base import Artifact, BoundArtifact, Subject
from artifactgen.artifacts.cam.gradcam import GradCAM
from artifactgen.artifacts.embedding import Embedding
from artifactgen.errors import UnsupportedError
from artifactgen.introspect.forward import forward
from artifactgen.introspect.taps import Taps
from artifactgen.models.timm import as_network
from artifactgen.rendering.overlay import scale_cam
from benchmarks.exactness import reference
from benchmarks.exactness.cases import Case
from benchmarks.exactness.unfused import unfused_weights

CLASSES = tuple(str(index) for index in range(7))
BATCH = 2
_PARTS = (2, 3)
"""Of an image, changed one at a time: rows and columns of them."""
IN_PLACE = 0.6
"""Of the parts found in place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an architecture gave. Deviations are the largest absolute ones."""

    embedding: float
    layer: str
    route: str
    gradcam: float
    empty: float
    """Share of the reference's maps that are zero everywhere: those agree about nothing."""
    attention: dict[int, float] | str
    """By block; the message where it is not supported."""
    in_place: dict[str, float]
    """By layer, see `in_place`."""

    def meets(self, case: Case) -> bool:
        """Whether all is as expected and within what the program promises."""
        attention = self.attention
        if isinstance(attention, str) or isinstance(case.attention, str):
            as_expected = attention == case.attention
        else:
            as_expected = attention.keys() == case.attention.keys()
            as_expected = as_expected and max(attention.values()) <= 1e-5
        return (
            as_expected
            and (self.layer, self.route) == (case.layer, case.route)
            and self.embedding <= 1e-5
            and self.gradcam <= 1e-4
            and self.empty == 0
            and min(self.in_place.values(), default=1) > IN_PLACE
        )


def check(case: Case) -> Outcome:
    """Run an architecture against its references."""
    model = reference.random_model(case.name, classes=len(CLASSES), **case.options)
    x_BCHW = reference.random_images(BATCH, size=case.size, seed=case.seed)
    subject = Subject(as_network(model), case.size, CLASSES, has_head=True)
    places = _in_place(case, subject, x_BCHW[0])
    if case.calibrated:
        calibrate(model, case.size)
    embedding = compute(subject, Embedding().bind(subject), x_BCHW)["embeddings"]
    cam = calibrated(subject, GradCAM(target_classes=list(case.classes)), x_BCHW)
    ours = scale_cam(compute(subject, cam, x_BCHW)["gradcam"].numpy(), case.size)
    theirs = reference.pytorch_grad_cam(model, cam.layer, x_BCHW, case.classes, reshape=case.layout)
    attention = _attention(case, subject, x_BCHW)
    return Outcome(
        embedding=deviation(embedding.numpy(), reference.timm_embedding(model, x_BCHW)),
        layer=cam.layer,
        route=cam.resolved()["route"],
        gradcam=deviation(ours, theirs),
        empty=float((theirs.max((-2, -1)) == 0).mean()),
        attention=attention,
        in_place=places,
    )


def calibrate(model: nn.Module, size: tuple[int, int]) -> None:
    """Give batch norms the statistics of random images, as training does.

    With random ones, in some deep networks all positions end up alike, and maps flat or empty.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.train().momentum = 1.0
    with torch.no_grad():
        model(reference.random_images(8, size=size, seed=0))
    model.eval()


def changed_parts(x_CHW: Tensor) -> Tensor:
    """(1 + parts, C, H, W): an image, and the same with one of its parts changed each."""
    height, width = x_CHW.shape[-2:]
    images = x_CHW.repeat(1 + math.prod(_PARTS), 1, 1, 1)
    noise = 3 * torch.randn(x_CHW.shape, generator=torch.Generator().manual_seed(0))
    for part, image in enumerate(images[1:]):
        top, left = divmod(part, _PARTS[1])
        rows = slice(top * height // _PARTS[0], (top + 1) * height // _PARTS[0])
        columns = slice(left * width // _PARTS[1], (left + 1) * width // _PARTS[1])
        image[:, rows, columns] += noise[:, rows, columns]
    return images


def in_place(maps_BChw: Tensor) -> float:
    """Share of parts whose change shows most where the part lies, of maps of `changed_parts`.

    This is what tells that positions are in the order of the image, which no comparison of two
    readings in the same order can. Chance gives one by the number of parts.
    """
    change_Phw = (maps_BChw[1:] - maps_BChw[:1]).square().sum(1)
    change_PP = functional.adaptive_avg_pool2d(change_Phw[:, None], _PARTS).flatten(1)
    change_PP /= change_PP.mean(0)  # some positions change with anything
    return float((change_PP.argmax(1) == torch.arange(len(change_PP))).float().mean())


def deviation(found: Any, expected: Any) -> float:
    """The largest absolute one."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.abs(found - expected).max())


def calibrated(subject: Subject, artifact: Artifact, x_BCHW: Tensor) -> Any:
    """Calibrated by the images, and bound anew, as every worker gets it."""
    bound = artifact.bind(subject)
    taps = bound.calibration_taps
    forward_pass = forward(subject.network, x_BCHW, taps=taps, classify=True)
    return bound.calibrate(forward_pass).options.bind(subject)


def compute(subject: Subject, bound: BoundArtifact, x_BCHW: Tensor) -> dict[str, Tensor]:
    """What a kind gives of a batch."""
    forward_pass = forward(subject.network, x_BCHW, taps=bound.taps, classify=True)
    return {name: tensor.detach() for name, tensor in bound.compute(forward_pass).items()}


def _in_place(case: Case, subject: Subject, x_CHW: Tensor) -> dict[str, float]:
    """Of the target layer, and of the attention that is shown."""
    attention = {} if isinstance(case.attention, str) else case.attention
    bound = {i: AttentionMaps(layers=(i,)).bind(subject) for i in attention}
    taps = Taps.union([Taps(outputs=(case.layer,)), *(b.taps for b in bound.values())])
    forward_pass = forward(subject.network, changed_parts(x_CHW), taps=taps, classify=True)
    places = {}
    if case.layout.order != "NCHW":  # a convolution's output has the image's order
        places[case.layer] = in_place(case.layout(forward_pass.outputs[case.layer]))
    for index, shown in attention.items():
        shares_BAhw = bound[index].compute(forward_pass)["attention"][:, 0]
        places[shown.layer] = in_place(shares_BAhw.clamp(min=1e-30).log())
    return {layer: share for layer, share in places.items() if layer not in case.mixed}


def _attention(case: Case, subject: Subject, x_BCHW: Tensor) -> dict[int, float] | str:
    if isinstance(case.attention, str):
        try:
            AttentionMaps().bind(subject)
        except UnsupportedError as error:
            return str(error)
        return "supported"
    seen = unfused_weights(subject.model, x_BCHW)
    deviations = {}
    for index, shown in case.attention.items():
        bound = AttentionMaps(layers=(index,)).bind(subject)
        assert [site.path for site in bound.sites] == [shown.layer]
        ours = compute(subject, bound, x_BCHW)["attention"][:, 0]
        (weights,) = seen[shown.layer]
        deviations[index] = deviation(ours, shown.expected(weights, len(x_BCHW)))
    return deviations
