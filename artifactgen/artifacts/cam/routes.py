"""Ways to the same class activation map: closed forms where there are any, else autograd.

GradCAM weighs the channels of a layer by the mean gradient of a class score over positions. So it
needs not the gradient itself but its mean, and for two common tails of a network that costs next
to nothing, for any number of classes (K classes, B images, C or D channels, N tokens):

`pooled`       the layer's output goes into global average pooling. Then the gradient is the same
               at all positions, and it is that of the pooled vector: K·C multiplications.
`class_token`  the layer is the norm before the last attention of a ViT, and the class token is
               classified. Only the query of the class token leads to the score, so what arrives at
               keys and values can be summed before it goes back through their projections:
               K·(11 D² + N D) multiplications.
`tail`         autograd through what is behind the layer, one class at a time. Always right.

Derivations are in docs/gradcam.md. A closed form is taken only after it met `tail` on the first
records of a run.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from artifactgen.artifacts.base import Subject
from artifactgen.artifacts.cam.autograd import Autograd
from artifactgen.artifacts.cam.base import SignedRoute
from artifactgen.artifacts.cam.closed_forms import ClassToken, ClosedForm, Pooled
from artifactgen.errors import ConfigError
from artifactgen.introspect.forward import Pass
from artifactgen.introspect.taps import Taps

log = logging.getLogger(__name__)

Route = Literal["auto", "pooled", "class_token", "tail"]
TOLERANCE = 1e-4
"""Of a closed form against autograd, relative to the largest value of each map."""

CLOSED_FORMS: Mapping[Route, type[Pooled] | type[ClassToken]] = {
    "pooled": Pooled,
    "class_token": ClassToken,
}


def make_route(route: Route, subject: Subject, layer: str) -> SignedRoute:
    """The route of that name; for `auto`, until `choose_route`, the one that is always right.

    Raises:
        ConfigError: the closed form is not derived for this model.
    """
    if route not in CLOSED_FORMS:
        return Autograd(subject, layer)
    form = CLOSED_FORMS[route](subject, layer)
    if not form.is_derived():
        raise _does_not_hold(route, subject, layer)
    return form


def comparison_taps(route: Route, subject: Subject, layer: str) -> Taps:
    """What `choose_route` needs of a forward pass, and what the chosen route needs after it."""
    forms = _derived_forms(route, subject, layer).values()
    return Taps.union(route.taps for route in (Autograd(subject, layer), *forms))


def choose_route(
    route: Route, subject: Subject, layer: str, forward_pass: Pass, classes: Sequence[int]
) -> Route:
    """The first closed form that is derived for this model and meets autograd on some images.

    Args:
        route: the only closed form to consider; `auto`: any; `tail`: none.
        subject: the model.
        layer: module path of the target layer.
        forward_pass: of the first images of a run, with `comparison_taps`.
        classes: class indices to compare by.

    Raises:
        ConfigError: the closed form that was asked for does not meet autograd.
    """
    if route == "tail":
        return route
    chosen = torch.tensor(list(classes), device=forward_pass.x_BCHW.device)
    expected = Autograd(subject, layer).signed_cams(forward_pass, chosen)
    for name, form in _derived_forms(route, subject, layer).items():
        if form.applies(forward_pass):
            found = form.signed_cams(forward_pass, chosen)
            if _meets(found, expected, name):
                return name
    if route != "auto":
        raise _does_not_hold(route, subject, layer)
    return "tail"


def _derived_forms(route: Route, subject: Subject, layer: str) -> dict[Route, ClosedForm]:
    """The closed forms to consider that are derived for this model."""
    forms = {
        name: form(subject, layer) for name, form in CLOSED_FORMS.items() if route in ("auto", name)
    }
    return {name: form for name, form in forms.items() if form.is_derived()}


def _does_not_hold(route: Route, subject: Subject, layer: str) -> ConfigError:
    """Why a closed form that a user asked for is refused."""
    return ConfigError(
        f"gradcam.route={route} does not hold for {layer} of {type(subject.model).__name__}. "
        "Set gradcam.route=auto."
    )


def _meets(found_BKhw: Tensor, expected_BKhw: Tensor, name: str) -> bool:
    """Whether every map, before the ReLU, is the same to a part of its own largest value."""
    deviation_BK = (found_BKhw - expected_BKhw).abs().amax((2, 3))
    size_BK = expected_BKhw.abs().amax((2, 3))
    deviation = float((deviation_BK / size_BK).max())  # NaN for an empty map: nothing is shown
    if deviation <= TOLERANCE:
        return True
    log.warning(
        "GradCAM: the closed form %r differs from autograd by %.1e of the largest value, "
        "so autograd is used.",
        name,
        deviation,
    )
    return False
