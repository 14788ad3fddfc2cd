"""GradCAM: which regions of an image drive each class.

Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization", ICCV 2017, https://arxiv.org/abs/1610.02391. Equal to the `GradCAM` of the library
pytorch-grad-cam on the same layer and class; `routes.py` computes it, `methods.py` the
other methods of that library.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from torch import Tensor

from artifactgen.artifacts.base import Arrays, Excerpt, Picture, Subject, Tensors, Trial, View
from artifactgen.artifacts.cam.autograd import CamRoute, for_each_image
from artifactgen.artifacts.cam.methods import (
    ActivationFormula,
    Method,
    Perturbation,
    make_method,
)
from artifactgen.artifacts.cam.routes import Route, make_route, route_does_not_hold, settle_route
from artifactgen.artifacts.cam.target_layer import (
    find_target_layer,
    layers_with_gradient,
    suggest_layers,
)
from artifactgen.errors import ConfigError, did_you_mean
from artifactgen.introspect.forward import Pass, Taps
from artifactgen.introspect.grid import get_layer, grid_of
from artifactgen.models.constants import constant
from artifactgen.rendering.colormaps import DEFAULT_COLORMAP
from artifactgen.rendering.overlay import OPACITY, Scale
from artifactgen.rendering.saliency import ALL_FRAMES, SaliencyPictures, Style, find_frame
from artifactgen.store.layout import gradcam_file

log = logging.getLogger(__name__)

PREDICTED = "predicted"
_CLASSES_COMPARED = 3
"""Classes by which a closed form is held against autograd before a run."""
_CLASSES_TRIED = 5
"""Classes of which maps are computed and drawn before a run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradCAM:
    """Options of GradCAM."""

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
            get_layer(subject.model, layer, option="gradcam.layer")
        find_frame(self.frames, subject.frame_names, option="gradcam.frames")
        classes = resolve_classes(self.target_classes, subject.classes)
        return BoundGradCAM(self, subject, layer, classes, self._way(subject, layer))

    def _way(self, subject: Subject, layer: str) -> CamRoute:
        if self.method == "gradcam":
            return make_route(self.route, subject, layer)
        return make_method(self.method, subject, layer)


def resolve_classes(
    wanted: Sequence[int | str] | str | None, classes: Sequence[str]
) -> tuple[int, ...] | None:
    """Class indices, in order and without doubles; None where each record's prediction is meant.

    Raises:
        ConfigError: a class that there is not.
    """
    if wanted == PREDICTED:
        return None
    if wanted is None:
        return tuple(range(len(classes)))
    if not wanted or isinstance(wanted, str):
        raise ConfigError(
            f"target_classes={wanted!r}: give a list of indices or names, null or {PREDICTED}."
        )
    return tuple(dict.fromkeys(_class_index(item, classes) for item in wanted))


def _class_index(wanted: int | str, classes: Sequence[str]) -> int:
    if isinstance(wanted, str) and wanted in classes:
        return classes.index(wanted)
    if isinstance(wanted, int) and 0 <= wanted < len(classes):
        return wanted
    raise ConfigError(
        f"target_classes: there is no class {wanted!r} among {len(classes)}. "
        f"{did_you_mean(str(wanted), classes)}"
    )


@dataclass(frozen=True, slots=True)
class BoundGradCAM:
    """Computes `gradcam`, float32 (B, K, h, w), and `gradcam_classes`, int64 (B, K)."""

    options: GradCAM
    subject: Subject
    layer: str
    classes: tuple[int, ...] | None
    way: CamRoute

    @property
    def taps(self) -> Taps:
        return self.way.taps

    def compute(self, run: Pass) -> Tensors:
        classes = self._classes(run)
        classes_BK = for_each_image(classes, run)
        return {"gradcam": self.way.cams(run, classes), "gradcam_classes": classes_BK}

    def _classes(self, run: Pass) -> Tensor:
        """Class indices, (K,) for all images or (B, K)."""
        assert run.logits_BK is not None
        if self.classes is None:
            return run.logits_BK.argmax(1, keepdim=True)
        return constant(self.classes, run.logits_BK.device)

    def settle(self, run: Pass) -> GradCAM:
        """Refuse a layer that gives no maps, choose the route, and warn of what is slow."""
        output = run.outputs[self.layer].detach()
        grid = grid_of(self.subject.model, output, image_size=run.image_size)
        needs_gradient = not isinstance(self.way, ActivationFormula)
        if needs_gradient and not layers_with_gradient(self.subject, [self.layer]):
            raise ConfigError(
                f"gradcam.layer={self.layer}: no class score depends on the patches there, so "
                f"every map would be empty.\nSet gradcam.layer to one of "
                f"{', '.join(suggest_layers(self.subject))}."
            )
        if isinstance(self.way, Perturbation):
            log.warning(
                "gradcam.method=%s runs the model about %d times for each record and class.",
                self.options.method,
                grid(output).shape[1],
            )
        return replace(self.options, layer=self.layer, route=self._settle_route(run))

    def _settle_route(self, run: Pass) -> Route:
        wanted = self.options.route
        if wanted == "tail" or self.options.method != "gradcam":
            return wanted
        chosen = self.classes or tuple(range(len(self.subject.classes)))
        some = chosen[:: max(1, len(chosen) // _CLASSES_COMPARED)][:_CLASSES_COMPARED]
        images_BCHW = run.x_BCHW.clone()
        route = settle_route(self.subject, self.layer, images_BCHW, some, wanted=wanted)
        if wanted not in ("auto", route):
            raise route_does_not_hold(wanted, self.subject, self.layer)
        return route

    def trial(self) -> Trial:
        """A few classes; of a perturbation, a map that looks alike and costs no forward passes."""
        way = self.way
        if isinstance(way, Perturbation):
            way = make_method("eigencam", self.subject, self.layer)
        some = None if self.classes is None else self.classes[:_CLASSES_TRIED]
        share = 1.0 if some is None else len(some) / len(self.classes or some)
        return Trial(replace(self, classes=some, way=way), share)

    def draw(self, view: View, arrays: Arrays) -> Iterator[Picture]:
        options, record_id = self.options, view.sample.record_id
        pictures = SaliencyPictures(
            style=options.style,
            scale=options.scale,
            colormap=options.colormap,
            opacity=options.opacity,
            frame=find_frame(options.frames, self.subject.frame_names, option="gradcam.frames"),
        )
        classes = arrays["gradcam_classes"].tolist()
        texts = [self._text(view, class_index) for class_index in classes]
        drawn = pictures.draw(view.images, arrays["gradcam"], texts)
        for class_index, picture in zip(classes, drawn, strict=True):
            yield gradcam_file(record_id, class_index), picture

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

    def excerpts(
        self, files: Sequence[str], *, label: int | None, prediction: int | None
    ) -> tuple[Excerpt, ...]:
        name = {"gradcam": "GradCAM"}.get(self.options.method, self.options.method)
        chosen = {f"{name}, true": label, f"{name}, predicted": prediction}
        return tuple(
            Excerpt(title, next((f for f in files if f.endswith(f"/class_{index}.png")), None))
            for title, index in chosen.items()
        )

    def columns(self) -> tuple[str, ...]:
        return ()

    def maps(self) -> tuple[str, ...]:
        return ("gradcam", "gradcam_classes")

    def describe(self) -> dict[str, Any]:
        classes = PREDICTED if self.classes is None else list(self.classes)
        described = {"method": self.options.method, "layer": self.layer, "classes": classes}
        if self.options.method == "gradcam":
            described["route"] = self.options.route
        return described
