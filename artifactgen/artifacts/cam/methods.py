"""The other methods of pytorch-grad-cam, by that library's own formulas.

Those that need activations and gradients get ours, from the one forward pass. Those that perturb
the image or the activations run the model anew for every channel, as they must, by the library
itself. https://github.com/jacobgil/pytorch-grad-cam
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from artifactgen.artifacts.base import Subject
from artifactgen.artifacts.cam.autograd import CamRoute, Tail, for_each_image
from artifactgen.errors import ConfigError
from artifactgen.introspect.forward import Pass, Taps
from artifactgen.introspect.grid import grid_of

ByFormula = Literal[
    "gradcam++", "xgradcam", "hirescam", "layercam", "gradcamelementwise", "eigengradcam"
]
ByActivation = Literal["eigencam"]
ByPerturbation = Literal["scorecam", "ablationcam"]
Method = Literal["gradcam", ByFormula, ByActivation, ByPerturbation]

_NAMES = {
    "gradcam++": "GradCAMPlusPlus",
    "xgradcam": "XGradCAM",
    "hirescam": "HiResCAM",
    "layercam": "LayerCAM",
    "gradcamelementwise": "GradCAMElementWise",
    "eigengradcam": "EigenGradCAM",
    "eigencam": "EigenCAM",
    "scorecam": "ScoreCAM",
    "ablationcam": "AblationCAM",
}
"""Method to its class in pytorch-grad-cam."""


def make_method(method: Method, subject: Subject, layer: str) -> CamRoute:
    """The method of that name; not `gradcam`, which is ours.

    Raises:
        ConfigError: pytorch-grad-cam is not installed.
    """
    try:
        import pytorch_grad_cam
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"gradcam.method={method} takes its formula from pytorch-grad-cam, which is not "
            "installed: pip install grad-cam. gradcam.method=gradcam needs nothing."
        ) from error
    kind = getattr(pytorch_grad_cam, _NAMES[method])
    if method in get_args(ByPerturbation):
        return Perturbation(kind, subject, layer)
    if method in get_args(ByActivation):
        return ActivationFormula(kind, subject, layer)
    return GradientFormula(kind, subject, layer)


def _formula(kind: Any) -> Callable[[NDArray[Any] | None, NDArray[Any] | None], NDArray[Any]]:
    """`get_cam_image` of a class of the library, without the hooks that its constructor sets."""

    class Formula(kind):  # type: ignore[misc]
        def __init__(self) -> None:
            pass

        def __del__(self) -> None:
            pass

    def compute(activation: Any, gradient: Any) -> NDArray[Any]:
        image: NDArray[Any] = Formula().get_cam_image(
            None, None, None, activation, gradient, eigen_smooth=False
        )
        return image

    return compute


@dataclass(frozen=True, slots=True)
class GradientFormula:
    """A formula of activations and of each class's gradients."""

    kind: Any
    subject: Subject
    layer: str
    taps: Taps = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "taps", Taps(gradients=(self.layer,)))

    def cams(self, run: Pass, classes: Tensor) -> Tensor:
        tail, formula = Tail(self.subject, self.layer), _formula(self.kind)
        activation = tail.activation(run).cpu().numpy()
        maps = [formula(activation, g.cpu().numpy()) for g in tail.gradients(run, classes)]
        return _stacked(maps, classes)


@dataclass(frozen=True, slots=True)
class ActivationFormula:
    """A formula of activations alone: the same map for every class."""

    kind: Any
    subject: Subject
    layer: str
    taps: Taps = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "taps", Taps(outputs=(self.layer,)))

    def cams(self, run: Pass, classes: Tensor) -> Tensor:
        output = run.outputs[self.layer].detach().float()
        activation = grid_of(self.subject.model, output, image_size=run.image_size)(output)
        image = _formula(self.kind)(activation.cpu().numpy(), None)
        return _stacked([image] * classes.shape[-1], classes)


@dataclass(frozen=True, slots=True)
class Perturbation:
    """A method that looks how scores change: a forward pass for each channel of the layer."""

    kind: Any
    subject: Subject
    layer: str
    taps: Taps = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "taps", Taps(outputs=(self.layer,)))

    def cams(self, run: Pass, classes: Tensor) -> Tensor:
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        layer = self.subject.model.get_submodule(self.layer)
        output = run.outputs[self.layer].detach().float()
        grid = grid_of(self.subject.model, output, image_size=run.image_size)
        activation = grid(output)
        maps = []
        with self._library(channels_last=grid.channels_last or output.ndim == 3) as cam:
            for classes_B in for_each_image(classes, run).unbind(1):
                targets = [ClassifierOutputTarget(int(index)) for index in classes_B]
                maps.append(
                    cam.get_cam_image(
                        run.x_BCHW.clone(), layer, targets, activation.cpu().numpy(), None
                    )
                )
        return _stacked(maps, classes)

    @contextmanager
    def _library(self, *, channels_last: bool) -> Iterator[Any]:
        """The library's object, without hooks and progress bars; the model stays as it was."""
        from pytorch_grad_cam.ablation_layer import AblationLayer, AblationLayerVit
        from pytorch_grad_cam.utils.find_layers import replace_layer_recursive

        model, layer = self.subject.model, self.subject.model.get_submodule(self.layer)
        ablation = AblationLayerVit() if channels_last else AblationLayer()
        options = {"ablation_layer": ablation} if self.kind.__name__ == "AblationCAM" else {}
        library = sys.modules[self.kind.__module__]
        progress = library.tqdm
        cam = self.kind(model, [layer], **options)
        cam.activations_and_grads.release()
        hooks = list(layer._forward_hooks)
        library.tqdm = SimpleNamespace(tqdm=iter)  # type: ignore[attr-defined]
        try:
            yield cam
        finally:
            library.tqdm = progress  # type: ignore[attr-defined]
            replace_layer_recursive(model, ablation, layer)
            for left in [key for key in layer._forward_hooks if key not in hooks]:
                del layer._forward_hooks[left]  # after an exception in the library


def _stacked(maps: list[NDArray[Any]], like: Tensor) -> Tensor:
    cams = np.maximum(np.stack(maps, 1), 0).astype(np.float32)
    return torch.from_numpy(cams).to(like.device)
