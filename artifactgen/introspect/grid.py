"""Reading the activations of any layer as a grid of positions over the image."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from artifactgen.errors import ConfigError, did_you_mean
from artifactgen.models.base import Traits
from artifactgen.models.shape import aspect_grid, has_form


def require_layer(model: nn.Module, path: str, *, option: str) -> None:
    """`ConfigError` naming `option` if a model has no module at a dotted path."""
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if path and path in modules:
        return
    raise ConfigError(
        f"{option}={path}: {type(model).__name__} has no such module. "
        f"{did_you_mean(path, filter(None, modules))}"
    )


@dataclass(frozen=True, slots=True)
class Grid:
    """How a layer's activation is laid out over the image."""

    height: int
    width: int
    prefix_tokens: int = 0
    """Class, register and distillation tokens before the patch tokens."""
    channels_last: bool = False

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, as shapes have them."""
        return self.height, self.width

    @property
    def tokens(self) -> int:
        """Of patches and what is before them."""
        return self.prefix_tokens + self.height * self.width

    def __call__(self, activation: Tensor) -> Tensor:
        """Read (B, N, C), (B, h, w, C) or (B, C, h, w) as (B, C, h, w), prefix tokens dropped."""
        if activation.ndim == 3:
            patches_BCN = activation[:, self.prefix_tokens :].transpose(1, 2)
            return patches_BCN.reshape(*patches_BCN.shape[:2], self.height, self.width)
        return activation.permute(0, 3, 1, 2) if self.channels_last else activation


def grid_of(traits: Traits, activation: Tensor, *, image_size: tuple[int, int]) -> Grid:
    """How a layer's activation lies over the image.

    Args:
        traits: of the model; they decide where shapes do not.
        activation: an output of the layer, (B, N, C), (B, h, w, C) or (B, C, h, w).
        image_size: (H, W) of the input in pixels.

    Raises:
        ConfigError: the activation has no position for each part of the image.
    """
    grid = None
    if activation.ndim == 4:
        grid = map_grid(traits, activation.shape, image_size)
    elif activation.ndim == 3:
        grid = tokens_grid(traits, activation.shape[1], image_size=image_size)
    if grid is None:
        raise ConfigError(
            f"The layer's output has shape {tuple(activation.shape)}: no position for each part of "
            "the image. Set gradcam.layer to a layer before pooling."
        )
    return grid


def map_grid(traits: Traits, shape: tuple[int, ...], image_size: tuple[int, int]) -> Grid | None:
    """The model's usual order of dimensions, or the other where only that has the image's form.

    Layers within a block may have another one: ConvNeXt normalises with channels last.
    """
    _, first, second, third = shape
    orders = [Grid(second, third), Grid(first, second, channels_last=True)]
    if traits.channels_last:
        orders.reverse()
    formed = [grid for grid in orders if has_form(grid.size, image_size)]
    return next(iter(formed), None)


def tokens_grid(traits: Traits, tokens: int, *, image_size: tuple[int, int]) -> Grid | None:
    """The grid that tokens form once those before the patches are left out; None if none fits.

    As many are left out as the model says; where it says nothing, none, or else a class token, if
    it has one: a padded window can have as many tokens as a grid and one. In some layers of some
    models the tokens before the patches are not there yet.
    """
    stated = traits.prefix_tokens
    if stated is None:
        possible = [0, 1] if traits.has_class_token else [0]
    else:
        possible = list(dict.fromkeys((stated, 0)))
    for prefix in possible:
        patches = patch_grid(traits, tokens - prefix, image_size=image_size)
        if patches is not None and tokens - prefix > 1:
            return Grid(*patches, prefix)
    return None


def patch_grid(
    traits: Traits, patches: int, *, image_size: tuple[int, int]
) -> tuple[int, int] | None:
    """Height and width of the grid that patches form; None where no grid has as many.

    The model's own where it has as many patches; else, as in later stages of a hierarchical
    model, the one of the image's aspect ratio.
    """
    units, own = traits.mask_units, traits.patch_grid
    if units is not None:
        # Tokens lie by their place in the units, not row by row, until a unit is one token.
        return units if units[0] * units[1] == patches else None
    if own is not None and own[0] * own[1] == patches:
        return own
    return aspect_grid(patches, image_size)
