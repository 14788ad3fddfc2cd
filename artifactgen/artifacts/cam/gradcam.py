"""GradCAM: which regions of an image drive each class.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017, https://arxiv.org/abs/1610.02391. Equal to the `GradCAM` of the library
pytorch-grad-cam on the same layer and class; `routes.py` computes it, `methods.py` the
other methods of that library.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from artifactgen.artifacts.base import (
    Arrays,
    Artifact,
    BoundArtifact,
    Excerpt,
    Excerpts,
    Picture,
    Subject,
    Tensors,
    Trial,
    View,
)
from artifactgen.artifacts.cam.base import CamRoute, for_each_image
from artifactgen.artifacts.cam.methods import (
    ActivationFormula,
    Method,
    Perturbation,
    make_method,
)
from artifactgen.artifacts.cam.routes import Route, choose_route, comparison_taps, make_route
from artifactgen.artifacts.cam.target_layer import (
    find_finer_layer,
    find_target_layer,
    layers_with_gradient,
    suggest_layers,
)
from artifactgen.artifacts.classes import PREDICTED, resolve_classes
from artifactgen.device import constant
from artifactgen.errors import ConfigError
from artifactgen.introspect.forward import Pass
from artifactgen.introspect.grid import require_layer
from artifactgen.introspect.taps import Taps
from artifactgen.rendering.colormaps import DEFAULT_COLORMAP
from artifactgen.rendering.overlay import OPACITY, Scale
from artifactgen.rendering.saliency import ALL_FRAMES, SaliencyPictures, Style, find_frame
from artifactgen.store.layout import safe_name

log = logging.getLogger(__name__)

_TOO_COARSE = 3
"""Positions along the longer side of a grid that shows hardly more than left and right."""
_CLASSES_COMPARED = 3
"""Classes by which a closed form is held against autograd before a run."""
_CLASSES_TRIED = 5
"""Classes of which maps are computed and drawn before a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradCAM(Artifact):
    """Options of GradCAM."""

    files: ClassVar[tuple[str, ...]] = ("gradcam/*/class_*.png",)

    method: Method = "gradcam"
    """Any of pytorch-grad-cam's; `scorecam` and `ablationcam` cost a forward pass per channel."""
    layer: str = "auto"
    """Module path of the target layer; `auto`: see `find_target_layer`."""
    route: Route = "auto"
    """How `gradcam` is computed, see `routes.py`; `auto`: the cheapest that meets autograd."""
    target_classes: list[int | str] | Literal["predicted"] | None = None
    """Classes by index or name; None: every class; `predicted`: each record's own prediction."""
    style: Style = "overlay"
    """`overlay`: the map over the image; `heatmap`: the map alone, as a picture of 256 colours."""
    frames: str = ALL_FRAMES
    """Where channels are frames: `all` plays them one after the other, in one PNG; the name of a
    frame lays the map over that one alone."""
    scale: Scale = "map"
    """`map`: each map its own range, as pytorch-grad-cam; `record`: one range over the classes of
    a record, so that they compare; `absolute`: as they are, clipped to [0, 1]."""
    colormap: str = DEFAULT_COLORMAP
    """Any name of matplotlib."""
    opacity: float = OPACITY
    """Weight of the colours where the map is hot, 0 to 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.opacity <= 1:
            raise ConfigError(f"gradcam.opacity={self.opacity} must lie between 0 and 1.")

    def bind(self, subject: Subject) -> BoundGradCAM:
        """Resolve layer and classes; `ConfigError` where the model has no classifier."""
        if subject.head_note:
            raise ConfigError(
                f"GradCAM needs a classifier. {subject.head_note}.\nOr set generate_gradcam=false."
            )
        if not subject.has_head:
            raise ConfigError(
                "GradCAM needs a classifier, and the checkpoint has none: an untrained one would "
                "give meaningless maps.\n"
                "Set generate_gradcam=false, or give a checkpoint that was fine-tuned for classes."
            )
        if self.layer == "auto":
            layer = find_target_layer(subject)
        else:
            layer = self.layer
            require_layer(subject.model, layer, option="gradcam.layer")
        find_frame(self.frames, subject.frame_names, option="gradcam.frames")
        classes = resolve_classes(self.target_classes, subject.classes)
        return BoundGradCAM(self, subject, layer, classes, self._route(subject, layer))

    def _route(self, subject: Subject, layer: str) -> CamRoute:
        if self.method == "gradcam":
            return make_route(self.route, subject, layer)
        return make_method(self.method, subject, layer)


@dataclass(frozen=True, slots=True)
class BoundGradCAM(BoundArtifact):
    """Computes `gradcam`, float32 (B, K, h, w), and `gradcam_classes`, int64 (B, K)."""

    maps = ("gradcam", "gradcam_classes")

    options: GradCAM
    subject: Subject
    layer: str
    classes: tuple[int, ...] | None
    route: CamRoute

    @property
    def taps(self) -> Taps:
        return self.route.taps

    @property
    def calibration_taps(self) -> Taps:
        if self.options.method != "gradcam":
            return self.taps
        return comparison_taps(self.options.route, self.subject, self.layer)

    def compute(self, forward_pass: Pass) -> Tensors:
        classes = self._classes(forward_pass)
        return {
            "gradcam": self.route.cams(forward_pass, classes),
            "gradcam_classes": for_each_image(classes, forward_pass),
        }

    def _classes(self, forward_pass: Pass) -> Tensor:
        """Class indices, (K,) for all images or (B, K)."""
        assert forward_pass.logits_BK is not None
        if self.classes is None:
            return forward_pass.logits_BK.argmax(1, keepdim=True)
        return constant(self.classes, forward_pass.logits_BK.device, dtype=torch.int64)

    def calibrate(self, forward_pass: Pass) -> BoundGradCAM:
        """Refuse a layer that gives no maps, choose the route, and warn of what is slow."""
        try:
            grid = self.route.grid(forward_pass)
        except ConfigError as error:
            works = ", ".join(suggest_layers(self.subject)) or "none"
            raise ConfigError(
                f"gradcam.layer={self.layer}: {error}\nThat would be: {works}."
            ) from error
        self._require_gradient()
        if isinstance(self.route, Perturbation):
            log.warning(
                "gradcam.method=%s runs the model about %d times for each record and class.",
                self.options.method,
                grid(forward_pass.outputs[self.layer].detach()).shape[1],
            )
        options = replace(self.options, layer=self.layer)
        if options.method != "gradcam":
            return replace(self, options=options)
        chosen = self.classes or tuple(range(len(self.subject.classes)))
        some = chosen[:: max(1, len(chosen) // _CLASSES_COMPARED)][:_CLASSES_COMPARED]
        name = choose_route(options.route, self.subject, self.layer, forward_pass, some)
        route = make_route(name, self.subject, self.layer)
        return replace(self, options=replace(options, route=name), route=route)

    def _require_gradient(self) -> None:
        # A layer that was found by its gradient has one; the formula of EigenCAM needs none.
        if self.options.layer == "auto" or isinstance(self.route, ActivationFormula):
            return
        if not layers_with_gradient(self.subject, [self.layer]):
            raise ConfigError(
                f"gradcam.layer={self.layer}: no class score depends on the patches there, so "
                f"every map would be empty.\nSet gradcam.layer to one of "
                f"{', '.join(suggest_layers(self.subject))}."
            )

    def trial(self) -> Trial:
        """A few classes; of a perturbation, a map that looks alike and costs no forward passes."""
        route = self.route
        if isinstance(route, Perturbation):
            route = make_method("eigencam", self.subject, self.layer)
        some = None if self.classes is None else self.classes[:_CLASSES_TRIED]
        share = 1.0 if some is None else len(some) / len(self.classes or some)
        return Trial(replace(self, classes=some, route=route), share)

    def doubts(self, arrays: Arrays) -> list[str]:
        """Say so where a map has too few positions to show regions, and which layer has more."""
        height, width = arrays["gradcam"].shape[-2:]
        if max(height, width) > _TOO_COARSE:
            return []
        finer = find_finer_layer(self.subject, side=_TOO_COARSE + 1)
        advice = "No later layer has a finer one; take larger images (data.image_size)."
        if finer is not None:
            path, (rows, columns) = finer
            advice = f"gradcam.layer={path} has {rows} × {columns}."
        return [
            f"GradCAM: {self.layer} has a grid of {height} × {width} for images of "
            f"{self.subject.image_size[0]} × {self.subject.image_size[1]} pixels, too coarse to "
            f"show regions. {advice}"
        ]

    def count_empty(self, arrays: Arrays) -> Mapping[str, int]:
        empty_BK = ~arrays["gradcam"].any((-2, -1))
        if self.classes is None:
            return {"the predicted class": int(empty_BK.sum())}
        names = (f"class {self.subject.classes[index]}" for index in self.classes)
        return dict(zip(names, empty_BK.sum(0).tolist(), strict=True))

    def draw(self, view: View, arrays: Arrays) -> Iterator[Picture]:
        options, record_id = self.options, view.sample.record_id
        pictures = SaliencyPictures(
            style=options.style,
            scale=options.scale,
            colormap=options.colormap,
            opacity=options.opacity,
            frame=find_frame(options.frames, self.subject.frame_names, option="gradcam.frames"),
        )
        canvas, classes = view.canvas, arrays["gradcam_classes"].tolist()
        texts = [{**self._text(view, index), **canvas.text} for index in classes]
        drawn = pictures.draw(canvas.images, arrays["gradcam"], texts, region=canvas.region)
        for class_index, picture in zip(classes, drawn, strict=True):
            yield f"gradcam/{safe_name(record_id)}/class_{class_index}.png", picture

    def _text(self, view: View, class_index: int) -> dict[str, str]:
        """What a picture says of its origin."""
        return {
            **view.provenance,
            "Record": view.sample.record_id,
            "Class": f"{class_index} {self.subject.classes[class_index]}",
            "Method": self.options.method,
            "Layer": self.layer,
            "Scale": self.options.scale,
        }

    @property
    def excerpts(self) -> Excerpts:
        name = {"gradcam": "GradCAM"}.get(self.options.method, self.options.method)
        return partial(_excerpts, name)

    def resolved(self) -> dict[str, Any]:
        options = self.options
        classes = PREDICTED if self.classes is None else list(self.classes)
        resolved = {"method": options.method, "layer": self.layer, "classes": classes}
        return {**resolved, "route": options.route} if options.method == "gradcam" else resolved


def _excerpts(
    name: str, files: Sequence[str], *, label: int | None, prediction: int | None
) -> tuple[Excerpt, ...]:
    """The maps of the true and of the predicted class."""
    return tuple(
        Excerpt(title, next((f for f in files if f.endswith(f"/class_{index}.png")), None))
        for title, index in ((f"{name}, true", label), (f"{name}, predicted", prediction))
    )
