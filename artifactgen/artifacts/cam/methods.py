"""The other methods of pytorch-grad-cam, by that library's own formulas.

Those that need activations and gradients get ours, from the one forward pass. Those that perturb
the image or the activations run the model anew for every channel, as they must, by the library
itself. https://github.com/jacobgil/pytorch-grad-cam
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from artifactgen.artifacts.base import Subject
from artifactgen.artifacts.cam.autograd import Autograd
from artifactgen.artifacts.cam.base import CamRoute, for_each_image
from artifactgen.errors import ConfigError
from artifactgen.introspect.forward import Pass
from artifactgen.introspect.taps import Taps

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
        return Perturbation(subject, layer, kind)
    if method in get_args(ByActivation):
        return ActivationFormula(subject, layer, kind)
    return GradientFormula(subject, layer, kind)


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
class LibraryMethod(CamRoute):
    """A method of pytorch-grad-cam."""

    kind: Any
    """Its class in the library."""


class GradientFormula(LibraryMethod):
    """A formula of activations and of each class's gradients."""

    __slots__ = ()

    @property
    def taps(self) -> Taps:
        return Taps(gradients=(self.layer,))

    def cams(self, forward_pass: Pass, classes: Tensor) -> Tensor:
        tail, formula = Autograd(self.subject, self.layer), _formula(self.kind)
        activation = tail.activation(forward_pass).cpu().numpy()
        gradients = tail.gradients(forward_pass, classes)
        return _stacked([formula(activation, g.cpu().numpy()) for g in gradients], classes)


class ActivationFormula(LibraryMethod):
    """A formula of activations alone: the same map for every class."""

    __slots__ = ()

    def cams(self, forward_pass: Pass, classes: Tensor) -> Tensor:
        activation = self.activation(forward_pass).cpu().numpy()
        image = _formula(self.kind)(activation, None)
        return _stacked([image] * classes.shape[-1], classes)


class Perturbation(LibraryMethod):
    """A method that looks how scores change: a forward pass for each channel of the layer."""

    __slots__ = ()

    def cams(self, forward_pass: Pass, classes: Tensor) -> Tensor:
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

        layer = self.subject.model.get_submodule(self.layer)
        tokens = forward_pass.outputs[self.layer].ndim == 3
        activation = self.activation(forward_pass).cpu().numpy()
        maps = []
        with self._library(channels_last=self.grid(forward_pass).channels_last or tokens) as cam:
            for classes_B in for_each_image(classes, forward_pass).unbind(1):
                targets = [ClassifierOutputTarget(int(index)) for index in classes_B]
                x_BCHW = forward_pass.x_BCHW.clone()
                maps.append(cam.get_cam_image(x_BCHW, layer, targets, activation, None))
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
