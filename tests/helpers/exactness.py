"""What a network's artifacts are held against: itself, eager attention and pytorch-grad-cam."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from artifactgen.artifacts.attention import AttentionMaps, BoundAttention
from artifactgen.artifacts.base import Artifact, BoundArtifact, Subject
from artifactgen.artifacts.cam.gradcam import BoundGradCAM, GradCAM
from artifactgen.introspect.forward import Pass, forward
from artifactgen.introspect.taps import Taps
from artifactgen.models.base import Network
from artifactgen.models.hooked import logits_of
from artifactgen.rendering.overlay import scale_cam
from benchmarks.exactness import reference
from benchmarks.exactness.reference import pytorch_grad_cam

Reshape = Callable[[Tensor], Tensor]


def tokens(grid: tuple[int, int], prefix: int = 0) -> Reshape:
    """pytorch-grad-cam's `reshape_transform` for (B, N, D)."""

    def reshape(output: Tensor) -> Tensor:
        patches_BND = output[:, prefix:]
        return patches_BND.transpose(1, 2).reshape(len(output), -1, *grid)

    return reshape


def channels_first(output: Tensor) -> Tensor:
    return output


def channels_last(output: Tensor) -> Tensor:
    return output.permute(0, 3, 1, 2)


def roughen(module: nn.Module) -> nn.Module:
    """Norms, biases and tokens made random too: at ones and zeros, many mistakes do not show."""
    torch.manual_seed(0)
    reference.roughen(module, least=0.05, share=0.3)
    return module


def images(size: tuple[int, int], batch: int = 3) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def subject_of(network: Network) -> Subject:
    size = network.family.input_size()
    classes = tuple(str(index) for index in range(network.family.num_classes or 0))
    return Subject(network, size, classes, bool(classes))


def passed(subject: Subject, x_BCHW: Tensor, taps: Taps) -> Pass:
    return forward(subject.network, x_BCHW, taps=taps, classify=subject.has_head)


def calibrated(subject: Subject, artifact: Artifact, x_BCHW: Tensor) -> BoundArtifact:
    """As every worker gets it."""
    bound = artifact.bind(subject)
    options = bound.calibrate(passed(subject, x_BCHW, bound.calibration_taps)).options
    found: BoundArtifact = options.bind(subject)
    return found


def require_same_cam(
    network: Network,
    reshape: Reshape,
    *,
    layer: str = "auto",
    classes: Sequence[int] = (0, 1, 2, 3),
) -> BoundGradCAM:
    """GradCAM on the layer that is found equals that of pytorch-grad-cam on it."""
    subject, x_BCHW = subject_of(network), images(network.family.input_size())
    bound = calibrated(subject, GradCAM(target_classes=list(classes)), x_BCHW)
    assert isinstance(bound, BoundGradCAM)
    arrays = bound.compute(passed(subject, x_BCHW, bound.taps))
    found = scale_cam(arrays["gradcam"].numpy(), subject.image_size)
    whole = Logits(network)
    expected = pytorch_grad_cam(whole, f"module.{bound.layer}", x_BCHW, classes, reshape=reshape)
    assert (expected.max((-2, -1)) > 0.5).mean() > 0.3, "empty maps would agree about nothing"
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    return bound


def windowed_mean(weights: Tensor, side: int, window: int, shift: int) -> Tensor:
    """What each position of a square map receives, on the average of all queries, (B, A, h, w).

    Of a softmax (B · windows, A, M, M) of a Swin that pads its map, rolls it, and cuts it.
    """
    more = -side % window
    numbers = functional.pad(torch.arange(1, side * side + 1).view(side, side), (0, more, 0, more))
    cells = (side + more) // window
    numbers = numbers.roll((-shift, -shift), (0, 1)).view(cells, window, cells, window)
    slots_WN = numbers.permute(0, 2, 1, 3).reshape(cells * cells, -1) - 1
    images_BWAMN = weights.unflatten(0, (-1, len(slots_WN)))
    found = torch.zeros(*images_BWAMN.shape[::2][:2], side * side)
    for index, slots_N in enumerate(slots_WN):
        real = slots_N >= 0
        received = images_BWAMN[:, index][:, :, real][..., real].sum(2)
        found[..., slots_N[real]] = received
    return found.unflatten(-1, (side, side)) / side**2


class Logits(nn.Module):
    """A network that gives a tensor, as pytorch-grad-cam needs it."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.module = network.module
        self.arguments = getattr(network, "arguments", {})

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return logits_of(self.module(x_BCHW, **self.arguments))


def shown_attention(
    network: Network, layers: tuple[int, ...] = (-1,)
) -> tuple[BoundAttention, Any]:
    """The attention that is shown of some images, (B, L, A, h, w)."""
    subject, x_BCHW = subject_of(network), images(network.family.input_size())
    bound = AttentionMaps(layers=layers).bind(subject)
    found: NDArray[np.float32] = bound.compute(passed(subject, x_BCHW, bound.taps))[
        "attention"
    ].numpy()
    return bound, found


def embeddings(network: Network) -> tuple[Tensor, Tensor | None]:
    """What is fed to the classifier, and the logits."""
    subject, x_BCHW = subject_of(network), images(network.family.input_size())
    found = passed(subject, x_BCHW, Taps())
    return found.pre_logits_BD, found.logits_BK
