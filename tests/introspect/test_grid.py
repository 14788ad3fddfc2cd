"""Grids are read from shapes, and from what a model says of itself where shapes do not tell."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from artifactgen.errors import ConfigError
from artifactgen.introspect.grid import Grid, grid_of, patch_grid, tokens_grid
from artifactgen.models.base import Traits
from artifactgen.models.timm import traits_of


def model(**attributes: Any) -> Traits:
    return traits_of(SimpleNamespace(**attributes))


def own_grid(height: int, width: int, **attributes: Any) -> Traits:
    return model(patch_embed=SimpleNamespace(grid_size=(height, width)), **attributes)


@pytest.mark.parametrize(
    ("shape", "output_fmt", "image_size", "expected"),
    [
        ((2, 64, 7, 7), "NCHW", (224, 224), Grid(7, 7)),
        ((2, 7, 7, 64), "NHWC", (224, 224), Grid(7, 7, channels_last=True)),
        # Within a block the order may be another one.
        ((2, 7, 7, 64), "NCHW", (224, 224), Grid(7, 7, channels_last=True)),
        ((2, 64, 7, 7), "NHWC", (224, 224), Grid(7, 7)),
        # Where both have the form of the image, the model's own order counts.
        ((2, 7, 7, 7), "NCHW", (224, 224), Grid(7, 7)),
        ((2, 7, 7, 7), "NHWC", (224, 224), Grid(7, 7, channels_last=True)),
        ((2, 512, 5, 10), "NCHW", (160, 320), Grid(5, 10)),
        ((2, 5, 10, 512), "NCHW", (160, 320), Grid(5, 10, channels_last=True)),
        # Without padding at its borders a map loses a little.
        ((2, 1536, 8, 8), "NCHW", (299, 299), Grid(8, 8)),
        ((2, 64, 6, 4), "NCHW", (106, 70), Grid(6, 4)),
        ((2, 64, 1, 1), "NCHW", (32, 32), Grid(1, 1)),
    ],
)
def test_maps(
    shape: tuple[int, ...], output_fmt: str, image_size: tuple[int, int], expected: Grid
) -> None:
    activation = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    grid = grid_of(model(output_fmt=output_fmt), activation, image_size=image_size)
    assert grid == expected
    read = grid(activation)
    assert read.shape[2:] == expected.size
    at = activation[1, 2, 3, 5] if expected.channels_last and min(shape) > 5 else None
    if at is not None:
        assert read[1, 5, 2, 3] == at


@pytest.mark.parametrize(
    ("of", "tokens", "image_size", "expected"),
    [
        (own_grid(14, 14, num_prefix_tokens=1), 197, (224, 224), Grid(14, 14, 1)),
        (own_grid(14, 14, num_prefix_tokens=5), 201, (224, 224), Grid(14, 14, 5)),
        (own_grid(28, 7, num_prefix_tokens=1), 197, (224, 224), Grid(28, 7, 1)),
        # Class tokens that come only after the blocks (CaiT).
        (own_grid(14, 14, num_prefix_tokens=1), 196, (224, 224), Grid(14, 14)),
        # Later stages of hierarchical models.
        (own_grid(56, 56, num_prefix_tokens=0), 49, (224, 224), Grid(7, 7)),
        (own_grid(16, 32, num_prefix_tokens=0), 32, (64, 128), Grid(4, 8)),
        # A model that says nothing of prefix tokens may have a class token (PiT, CrossViT).
        (own_grid(27, 27, cls_token=0), 50, (224, 224), Grid(7, 7, 1)),
        (own_grid(20, 20, cls_token_0=0), 401, (240, 240), Grid(20, 20, 1)),
        # Without one, this is a padded window of another size (DaViT).
        (own_grid(27, 27), 50, (224, 224), None),
        (model(), 49, (224, 224), Grid(7, 7)),
        (own_grid(14, 14, num_prefix_tokens=0), 50, (224, 224), None),
        (own_grid(14, 14, num_prefix_tokens=1), 1, (224, 224), None),
        (model(), 12, (224, 224), None),
    ],
)
def test_tokens(
    of: Traits, tokens: int, image_size: tuple[int, int], expected: Grid | None
) -> None:
    assert tokens_grid(of, tokens, image_size=image_size) == expected


def test_prefix_tokens_are_left_out_and_rows_come_first() -> None:
    tokens_BNC = torch.arange(2 * 8 * 3.0).reshape(2, 8, 3)
    read = Grid(2, 3, prefix_tokens=2)(tokens_BNC)
    assert read.shape == (2, 3, 2, 3)
    assert torch.equal(read[1, :, 1, 0], tokens_BNC[1, 2 + 3])


@pytest.mark.parametrize("shape", [(2, 10), (2, 12, 64), (2, 64, 7, 30), (2, 3, 4, 5, 6)])
def test_what_has_no_positions_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="no position for each part"):
        grid_of(model(), torch.zeros(shape), image_size=(224, 224))


@pytest.mark.parametrize("patches", [0, -1, 50])
def test_no_grid_has_so_many_patches(patches: int) -> None:
    assert patch_grid(model(), patches, image_size=(224, 224)) is None
