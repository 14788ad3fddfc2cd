"""Images as people have them in a notebook, as the batch that a model takes; and as pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from artifactgen.errors import DataError
from artifactgen.models.base import per_channel
from artifactgen.pixels import FAR
from artifactgen.rendering.image import display_images

Preprocess = Callable[[Any], Any]

_MOST_CHANNELS = 16
"""Of images whose last side is 1 or 3 pixels; with more, that side is the channels."""
_EXPECTED = "Give floats of (C, H, W) or (B, C, H, W), normalised as the model was trained."


def as_batch(images: Any, preprocess: Preprocess | None) -> NDArray[np.float32]:
    """(B, C, H, W) on the CPU, a copy.

    Args:
        images: a tensor or an array of one image or of several, or a list of such; pictures of
            Pillow, one or a list, where there is `preprocess`.
        preprocess: a picture to (C, H, W), as it comes from `timm.data.create_transform`.

    Raises:
        DataError: they are something else.
    """
    if isinstance(images, list | tuple):
        batch = _stacked([_as_array(image, preprocess) for image in images])
    else:
        batch = _as_array(images, preprocess)
    if batch.ndim == 3:
        batch = batch[None]
    _require_images(batch)
    return np.array(batch, dtype=np.float32, order="C")


def _as_array(image: Any, preprocess: Preprocess | None) -> NDArray[Any]:
    if isinstance(image, Image.Image):
        if preprocess is None:
            raise DataError(
                "A picture has to become what the model takes: give Explainer its preprocess=, "
                "such as timm.data.create_transform(**timm.data.resolve_model_data_config(model)) "
                "or torchvision's weights.transforms()."
            )
        image = preprocess(image)
    if isinstance(image, Tensor):
        # NumPy has no bfloat16.
        tensor = image.detach().cpu()
        array: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
        return array
    if isinstance(image, np.ndarray):
        return image
    raise DataError(f"A {type(image).__name__} is no image. {_EXPECTED}{_advice(image)}")


def _advice(image: Any) -> str:
    """What a batch of another form wants."""
    if isinstance(image, Mapping):
        return f" Of this one, which has {', '.join(map(str, image))}: images['pixel_values']?"
    if isinstance(image, list | tuple):
        return " Of a pair of images and labels, give the images."
    return ""


def _stacked(images: Sequence[NDArray[Any]]) -> NDArray[Any]:
    if not images:
        raise DataError(f"There is no image. {_EXPECTED}")
    shapes = list(dict.fromkeys(image.shape for image in images))
    if len(shapes) > 1:
        raise DataError(
            f"The images have several shapes, {' and '.join(map(str, shapes[:3]))}: a batch has "
            "one. Of a pair of images and labels, give the images."
        )
    return np.stack(images)


def _require_images(batch: NDArray[Any]) -> None:
    if batch.ndim != 4 or not batch.size:
        raise DataError(f"The shape {batch.shape} is none of images. {_EXPECTED}")
    if batch.dtype.kind != "f":
        raise DataError(
            f"The images are {batch.dtype}: they are not normalised. {_EXPECTED} "
            "Or give pictures of Pillow, and preprocess= to Explainer."
        )
    if batch.shape[3] in (1, 3) and batch.shape[1] > _MOST_CHANNELS:
        raise DataError(f"The shape {batch.shape} has its channels last. {_EXPECTED}")


def as_picture(
    image_CHW: NDArray[np.float32], mean: Sequence[float] | None, std: Sequence[float] | None
) -> NDArray[np.uint8]:
    """What the model saw as a person sees it, (H, W, 3) uint8.

    Args:
        image_CHW: normalised.
        mean: of each channel, or one for all; None: brightness goes from the smallest to the
            largest value of the image.
        std: likewise.
    """
    if mean is None or std is None:
        return display_images(image_CHW)[0]
    means, stds = (
        np.array(per_channel(tuple(values), len(image_CHW)), np.float32)[:, None, None]
        for values in (mean, std)
    )
    return display_images(np.clip(image_CHW * stds + means, 0, 1))[0]


def doubt(images_BCHW: NDArray[np.float32], mean: Sequence[float] | None) -> str:
    """What looks wrong about the range of images, with what to do; nothing where it is usual.

    Args:
        images_BCHW: as they are given to the model.
        mean: what it states of its training's normalisation, if it does.
    """
    finite = images_BCHW[np.isfinite(images_BCHW)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (-1.0, 1.0)
    span = f"The images go from {low:.4g} to {high:.4g}"
    if max(-low, high) > FAR:
        return f"{span}: they do not look normalised. Give (image - mean) / std of the training."
    if low >= 0 and high <= 1 and mean is not None and any(mean):
        means = ", ".join(f"{value:.3g}" for value in mean)
        return (
            f"{span} and are taken as they are. If the model was trained on normalised ones, as it "
            f"states (mean {means}), normalise them."
        )
    return ""


def finite_images(batch_BCHW: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """The first images without NaN and infinity, at most `most`; noise if there is none."""
    finite = np.isfinite(batch_BCHW).reshape(len(batch_BCHW), -1).all(1)
    if not finite.any():
        generator = torch.Generator().manual_seed(0)
        noise: NDArray[np.float32] = torch.randn(
            1, *batch_BCHW.shape[1:], generator=generator, device="cpu"
        ).numpy()
        return noise
    return batch_BCHW[finite][:most]
