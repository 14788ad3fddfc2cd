"""Images in all the forms in which people have them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers.binding import random_model
from PIL import Image
from torch import Tensor

from artifactgen import Explainer
from artifactgen.errors import DataError
from artifactgen.explainer.batch import as_batch, as_picture, doubt, finite_images

IMAGE = torch.linspace(-1, 1, 3 * 8 * 6).reshape(3, 8, 6)


def transform(picture: Image.Image) -> Tensor:
    pixels = np.asarray(picture.convert("RGB"), np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)


FORMS: dict[str, Any] = {
    "a tensor": IMAGE,
    "a batch": IMAGE[None],
    "a list": [IMAGE],
    "an array": IMAGE.numpy(),
    "doubles": IMAGE.double(),
    "with a graph": IMAGE.clone().requires_grad_(),
    "not contiguous": IMAGE.permute(1, 2, 0).contiguous().permute(2, 0, 1),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_same_batch(form: str) -> None:
    batch = as_batch(FORMS[form], None)
    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous
    assert np.array_equal(batch, IMAGE[None].numpy())
    assert not np.shares_memory(batch, IMAGE.numpy())


def test_pictures_go_through_the_transform_and_tensors_do_not() -> None:
    picture = Image.fromarray(np.arange(8 * 6 * 3, dtype=np.uint8).reshape(8, 6, 3))
    expected = transform(picture).numpy()
    assert np.array_equal(as_batch(picture, transform), expected[None])
    assert np.array_equal(as_batch([picture, IMAGE], transform)[1], IMAGE.numpy())
    with pytest.raises(DataError, match=r"give Explainer its preprocess=, such as timm\.data"):
        as_batch([picture], None)


WRONG = {
    "labels beside": ([IMAGE[None], torch.tensor([1])], "several shapes.*give the images"),
    "a pair in a list": ([[IMAGE]], "A list is no image.*give the images"),
    "a mapping": ({"pixel_values": IMAGE}, "has pixel_values: images.'pixel_values'.?"),
    "bytes": ((255 * IMAGE.abs()).to(torch.uint8), "are uint8: they are not normalised"),
    "channels last": (torch.zeros(1, 32, 32, 3), "has its channels last"),
    "grey": (torch.zeros(8, 6), r"shape \(8, 6\) is none of images"),
    "nothing": ([], "There is no image"),
    "none of them": (torch.zeros(0, 3, 8, 6), "is none of images"),
    "a path": ("cat.png", "A str is no image"),
}


@pytest.mark.parametrize("form", WRONG)
def test_what_is_no_image_is_refused_with_what_to_give(form: str) -> None:
    images, message = WRONG[form]
    with pytest.raises(DataError, match=message):
        as_batch(images, None)


def test_an_image_is_shown_as_it_was_before_normalisation() -> None:
    pixels_CHW = np.random.default_rng(0).integers(0, 256, (3, 8, 6), dtype=np.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    shape = (3, 1, 1)
    normalised = (pixels_CHW / np.float32(255) - np.reshape(mean, shape)) / np.reshape(std, shape)
    shown = as_picture(normalised.astype(np.float32), mean, std)
    assert np.array_equal(shown, pixels_CHW.transpose(1, 2, 0))
    stretched = as_picture(normalised.astype(np.float32), None, None)
    assert (stretched.min(), stretched.max()) == (0, 255)


def test_images_to_compare_by_are_finite() -> None:
    batch = np.zeros((4, 3, 2, 2), np.float32)
    batch[0, 0, 0, 0] = np.nan
    assert finite_images(batch, 2).shape == (2, 3, 2, 2)
    assert np.isfinite(finite_images(batch, 2)).all()
    assert np.isfinite(finite_images(batch[:1], 2)).all()


def test_a_range_that_is_not_that_of_the_training_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    mean = (0.485, 0.456, 0.406)
    unit = np.linspace(0, 1, 3 * 8 * 8, dtype=np.float32).reshape(1, 3, 8, 8)
    assert "go from 0 to 255: they do not look normalised" in doubt(255 * unit, mean)
    assert "as it states (mean 0.485, 0.456, 0.406), normalise them" in doubt(unit, mean)
    assert doubt(unit, None) == ""
    assert doubt(4 * unit - 2, mean) == ""
    assert doubt(unit * np.nan, mean) == ""
    explain = Explainer(random_model("resnet18"))
    for _ in range(2):
        explain(np.repeat(np.repeat(unit, 8, 2), 8, 3))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
