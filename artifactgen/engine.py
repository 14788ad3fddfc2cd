"""A model on a device with the artifacts bound to it: a batch of images in, arrays out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from artifactgen.artifacts.forward import Pass, Taps, forward
from artifactgen.artifacts.kind import BoundArtifact, Subject
from artifactgen.errors import ConfigError

Accelerator = Literal["auto", "cpu", "gpu"]
Precision = Literal["auto", "32-true", "bf16-mixed", "16-mixed"]
_AUTOCAST: dict[str, torch.dtype] = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclass(frozen=True, slots=True)
class Normalization:
    """Preprocessing on the device.

    Integer images are scaled to [0, 1] by the range of their type and normalised. Floating ones
    are taken as they are, unless mean and std were asked for.
    """

    mean: tuple[float, ...]
    """For each channel, or one for all."""
    std: tuple[float, ...]
    of_floats: bool = False

    def __call__(self, images_BCHW: Tensor) -> Tensor:
        """(B, C, H, W) of any type to float32."""
        x_BCHW = images_BCHW.float()
        if images_BCHW.is_floating_point() and not self.of_floats:
            return x_BCHW
        if not images_BCHW.is_floating_point():
            x_BCHW = x_BCHW / torch.iinfo(images_BCHW.dtype).max
        return (x_BCHW - self._per_channel(self.mean, x_BCHW)) / self._per_channel(self.std, x_BCHW)

    @staticmethod
    def _per_channel(values: tuple[float, ...], x_BCHW: Tensor) -> Tensor:
        return torch.tensor(values, device=x_BCHW.device).view(-1, 1, 1)


def resolve_device(accelerator: Accelerator) -> torch.device:
    """The device to compute on; `ConfigError` if a GPU is asked for and there is none."""
    if accelerator == "cpu":
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if accelerator == "gpu":
        raise ConfigError(
            "accelerator=gpu, but torch finds no CUDA device. Set accelerator=auto or cpu."
        )
    return torch.device("cpu")


def resolve_precision(precision: Precision, device: torch.device) -> Precision:
    """`auto` is bf16-mixed where the device computes bf16 natively, else 32-true."""
    if precision == "16-mixed" and device.type == "cpu":
        raise ConfigError("precision=16-mixed needs a GPU. Use bf16-mixed or 32-true on a CPU.")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
        native = bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))
    return "bf16-mixed" if native else "32-true"


def make_reproducible(*, exact: bool) -> None:
    """On a GPU, equal bytes in every run: no algorithm that depends on the order of threads.

    Args:
        exact: also compute float32 as float32, not as TF32, whose error is about 1e-3.
    """
    if not torch.cuda.is_available():
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cuda.matmul.allow_tf32 = not exact
    torch.backends.cudnn.allow_tf32 = not exact


@dataclass(frozen=True, slots=True)
class Engine:
    """Everything that a batch of images meets on the device."""

    subject: Subject
    artifacts: Mapping[str, BoundArtifact]
    device: torch.device
    precision: Precision
    normalization: Normalization
    channels: int
    """Channels that the model takes."""

    def run(self, images_BCHW: NDArray[Any]) -> Pass:
        """One forward pass. Images with one channel are repeated to what the model takes."""
        images = torch.from_numpy(images_BCHW).to(self.device, non_blocking=True)
        x_BCHW = self.normalization(images.expand(-1, self.channels, -1, -1))
        dtype = _AUTOCAST.get(self.precision)
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            return forward(
                self.subject.model,
                x_BCHW,
                taps=Taps.union(artifact.taps for artifact in self.artifacts.values()),
                classify=self.subject.has_head,
            )

    def __call__(self, images_BCHW: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Compute every artifact.

        Args:
            images_BCHW: (B, C, H, W), integer or float32, before normalisation.

        Returns:
            The arrays of every artifact, and `predictions`, int64 (B,), and `probabilities`,
            float32 (B,), where there is a classifier. All have leading dimension B.
        """
        return self.compute(self.run(images_BCHW))

    def compute(self, run: Pass) -> dict[str, NDArray[Any]]:
        """The arrays of a forward pass, see `__call__`."""
        arrays = _classify(run)
        for artifact in self.artifacts.values():
            arrays.update(artifact.compute(run))
        return arrays


def _classify(run: Pass) -> dict[str, NDArray[Any]]:
    if run.logits_BK is None:
        return {}
    probabilities_BK = run.logits_BK.detach().float().softmax(1)
    best_B, predictions_B = probabilities_BK.max(1)
    return {"predictions": predictions_B.cpu().numpy(), "probabilities": best_B.cpu().numpy()}


def finite_rows(arrays: Mapping[str, NDArray[Any]], rows: int) -> NDArray[np.bool_]:
    """Which of the rows hold no NaN and no infinity in any array, (B,)."""
    finite = np.ones(rows, dtype=bool)
    for array in arrays.values():
        finite &= np.isfinite(array).reshape(rows, -1).all(1)
    return finite
