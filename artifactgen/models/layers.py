"""Finding layers in a timm model, and reading their activations as a grid of positions."""

from __future__ import annotations

from dataclasses import dataclass

from timm.layers import Attention
from torch import Tensor, nn

from artifactgen.errors import ConfigError, UnsupportedError, did_you_mean


def find_target_layer(model: nn.Module) -> str:
    """Module path of the layer whose activations GradCAM weighs.

    For transformers with a norm before attention it is `norm1` of the last block: at the output
    of that block the patch tokens no longer reach a class token's logit, so their gradient is
    zero. Elsewhere it is the last stage that timm lists for feature extraction.

    Raises:
        ConfigError: the architecture has neither.
    """
    blocks = getattr(model, "blocks", None)
    if blocks is not None and len(blocks) and _is_transformer_block(blocks[-1]):
        return f"blocks.{len(blocks) - 1}.norm1"
    stages = getattr(model, "feature_info", None)
    if stages:
        return str(stages[-1]["module"])
    raise ConfigError(
        f"Cannot tell which layer of {type(model).__name__} GradCAM should look at.\n"
        "Set gradcam.layer to the path of a module whose output has one vector for each position: "
        f"{did_you_mean('', (name for name, _ in model.named_children()))}"
    )


def _is_transformer_block(block: nn.Module) -> bool:
    return hasattr(block, "norm1") and hasattr(block, "attn")


def get_layer(model: nn.Module, path: str, *, option: str) -> nn.Module:
    """The module at a dotted path; `ConfigError` naming `option` if there is none."""
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if path and path in modules:
        return modules[path]
    raise ConfigError(
        f"{option}={path}: {type(model).__name__} has no such module. "
        f"{did_you_mean(path, filter(None, modules))}"
    )


def attention_layers(model: nn.Module) -> list[str]:
    """Module paths of the self-attention of each block, first to last.

    Raises:
        UnsupportedError: the model has no attention, or of a kind that is not read yet.
    """
    blocks = getattr(model, "blocks", ())
    layers = [getattr(block, "attn", None) for block in blocks]
    if not layers or any(layer is None for layer in layers):
        name = type(model).__name__
        raise UnsupportedError(f"{name} has no transformer blocks with self-attention")
    foreign = {type(layer).__name__ for layer in layers if type(layer) is not Attention}
    if foreign:
        raise UnsupportedError(
            f"the attention of {type(model).__name__} ({', '.join(sorted(foreign))}) "
            "is of a kind that is not supported"
        )
    return [f"blocks.{index}.attn" for index in range(len(layers))]


@dataclass(frozen=True, slots=True)
class Grid:
    """How a layer's activation is laid out over the image."""

    height: int
    width: int
    prefix_tokens: int = 0
    """Class, register and distillation tokens before the patch tokens."""
    channels_last: bool = False

    def __call__(self, activation: Tensor) -> Tensor:
        """Read (B, N, C), (B, h, w, C) or (B, C, h, w) as (B, C, h, w), prefix tokens dropped."""
        if activation.ndim == 3:
            patches_BCN = activation[:, self.prefix_tokens :].transpose(1, 2)
            return patches_BCN.reshape(*patches_BCN.shape[:2], self.height, self.width)
        return activation.permute(0, 3, 1, 2) if self.channels_last else activation


def grid_of(model: nn.Module, activation: Tensor, *, image_size: tuple[int, int]) -> Grid:
    """Tell the layout of a layer's activation.

    Args:
        model: a timm model; its `num_prefix_tokens` and `output_fmt` are what is relied on.
        activation: an output of the layer, (B, N, C), (B, h, w, C) or (B, C, h, w).
        image_size: (H, W) of the input in pixels.

    Raises:
        ConfigError: the activation has no position for each part of the image.
    """
    if activation.ndim == 4:
        channels_last = getattr(model, "output_fmt", "NCHW") == "NHWC"
        height, width = activation.shape[1:3] if channels_last else activation.shape[2:]
        return Grid(height, width, channels_last=channels_last)
    if activation.ndim == 3:
        prefix = int(getattr(model, "num_prefix_tokens", 0))
        height, width = token_grid(model, activation.shape[1] - prefix, image_size=image_size)
        return Grid(height, width, prefix)
    raise ConfigError(
        f"The layer's output has shape {tuple(activation.shape)}: no position for each part of "
        "the image. Set gradcam.layer to a layer before pooling."
    )


def token_grid(model: nn.Module, tokens: int, *, image_size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of the grid that patch tokens form.

    The model's own patch grid where it has as many patches; else, as in later stages of a
    hierarchical model, the grid with the aspect ratio of the image.

    Raises:
        ConfigError: no grid has as many tokens.
    """
    own = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if own is not None and own[0] * own[1] == tokens:
        return int(own[0]), int(own[1])
    image_height, image_width = image_size
    height = round((tokens * image_height / image_width) ** 0.5)
    width = round((tokens * image_width / image_height) ** 0.5)
    if height * width != tokens:
        raise ConfigError(
            f"{tokens} tokens do not form a grid over an image of {image_height} × {image_width}."
        )
    return height, width
