"""Reading the activations of any layer as a grid of positions over the image."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from artifactgen.errors import ConfigError, did_you_mean


def get_layer(model: nn.Module, path: str, *, option: str) -> nn.Module:
    """The module at a dotted path; `ConfigError` naming `option` if there is none."""
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if path and path in modules:
        return modules[path]
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


def grid_of(model: nn.Module, activation: Tensor, *, image_size: tuple[int, int]) -> Grid:
    """Tell the layout of a layer's activation.

    Args:
        model: a timm model; its `num_prefix_tokens` and `output_fmt` decide where shapes do not.
        activation: an output of the layer, (B, N, C), (B, h, w, C) or (B, C, h, w).
        image_size: (H, W) of the input in pixels.

    Raises:
        ConfigError: the activation has no position for each part of the image.
    """
    grid = None
    if activation.ndim == 4:
        grid = map_grid(model, activation.shape, image_size)
    elif activation.ndim == 3:
        grid = tokens_grid(model, activation.shape[1], image_size=image_size)
    if grid is None:
        raise ConfigError(
            f"The layer's output has shape {tuple(activation.shape)}: no position for each part of "
            "the image. Set gradcam.layer to a layer before pooling."
        )
    return grid


def map_grid(model: nn.Module, shape: tuple[int, ...], image_size: tuple[int, int]) -> Grid | None:
    """The model's usual order of dimensions, or the other where only that has the image's form.

    Layers within a block may have another one: ConvNeXt normalises with channels last.
    """
    _, first, second, third = shape
    orders = [Grid(second, third), Grid(first, second, channels_last=True)]
    if getattr(model, "output_fmt", "NCHW") == "NHWC":
        orders.reverse()
    formed = [grid for grid in orders if _has_form(grid.size, image_size)]
    return next(iter(formed), None)


def _has_form(grid: tuple[int, int], image_size: tuple[int, int]) -> bool:
    """Whether both sides were reduced alike, give or take one at each border of each reduction."""
    (height, width), (image_height, image_width) = grid, image_size
    if min(height, width) < 1 or height > image_height or width > image_width:
        return False
    return abs(height - width * image_height / image_width) < max(2.0, 0.1 * height)


def tokens_grid(model: nn.Module, tokens: int, *, image_size: tuple[int, int]) -> Grid | None:
    """The grid that tokens form once those before the patches are left out; None if none fits.

    As many are left out as the model says; where it says nothing, none, or else a class token, if
    it has one: a padded window can have as many tokens as a grid and one. In some layers of some
    models the tokens before the patches are not there yet.
    """
    said = getattr(model, "num_prefix_tokens", None)
    if said is None:
        possible = [0, 1] if has_class_token(model) else [0]
    else:
        possible = list(dict.fromkeys((int(said), 0)))
    for prefix in possible:
        patches = patch_grid(model, tokens - prefix, image_size=image_size)
        if patches is not None and tokens - prefix > 1:
            return Grid(*patches, prefix)
    return None


def patch_grid(
    model: nn.Module, patches: int, *, image_size: tuple[int, int]
) -> tuple[int, int] | None:
    """Height and width of the grid that patches form; None where no grid has as many.

    The model's own where it has as many patches; else, as in later stages of a hierarchical
    model, the one of the image's aspect ratio.
    """
    units = getattr(model, "mask_spatial_shape", None)
    if units is not None:
        # Hiera holds tokens by their place in mask units, not row by row, until a unit is a token.
        return (int(units[0]), int(units[1])) if units[0] * units[1] == patches else None
    own = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if own is not None and own[0] * own[1] == patches:
        return int(own[0]), int(own[1])
    if patches < 1:
        return None
    image_height, image_width = image_size
    height = round((patches * image_height / image_width) ** 0.5)
    width = round((patches * image_width / image_height) ** 0.5)
    return (height, width) if height * width == patches else None


def has_class_token(model: nn.Module) -> bool:
    """Whether the first of the tokens before the patches is a class token."""
    names = (name for name in dir(model) if name.startswith("cls_token"))
    return any(getattr(model, name) is not None for name in names)


def pools_patches(model: nn.Module) -> bool:
    """Whether the classifier is fed with an average or maximum over patches."""
    return getattr(model, "global_pool", None) in ("avg", "avgmax", "max", "catavgmax")
