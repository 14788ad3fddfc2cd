"""Where a model computes attention that can be shown on its image, and how to read it there."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from artifactgen.errors import UnsupportedError
from artifactgen.introspect.grid import Grid, map_grid, tokens_grid
from artifactgen.introspect.probe import Probe
from artifactgen.introspect.windows import Windows, trace_windows


@dataclass(frozen=True, slots=True)
class AttentionSite:
    """A layer whose attention weights have a key for each position of a grid."""

    path: str
    heads: int
    grid: Grid
    """Of the keys."""
    has_class_query: bool
    """Whether the first query, or the only one, is a class token."""
    queries: int
    """M"""
    windows: Windows | None = None
    """Where positions attend only within windows: which window holds which."""


def attention_sites(seen: Probe) -> list[AttentionSite]:
    """Every such layer, in the order of the computation.

    Raises:
        UnsupportedError: the model has none.
    """
    sites = [site for path in seen.attention if (site := _site(seen, path))]
    if sites:
        return sites
    model = seen.network.module
    name = type(model).__name__
    if not seen.attention:
        raise UnsupportedError(f"{name} computes no attention")
    kinds = sorted({type(model.get_submodule(path)).__name__ for path in seen.attention})
    raise UnsupportedError(
        f"the attention of {name} ({', '.join(kinds)}) has no weights between positions of the "
        "image that could be shown"
    )


def _site(seen: Probe, path: str) -> AttentionSite | None:
    layer, shapes = seen.network.module.get_submodule(path), seen.attention[path]
    traits = seen.network.traits
    if len(shapes) != 1 or type(layer).__name__ in traits.not_over_positions:
        return None
    shape = _with_heads(layer, shapes[0])
    if shape is None:
        return None
    batch, heads, queries, keys = shape
    if batch > 1 or (queries == keys and _is_padded(seen, path, keys)):
        windows = trace_windows(seen, path, windows=batch, tokens=keys)
        if windows is None or queries != keys:
            return None
        return AttentionSite(path, heads, windows.grid, False, queries, windows)
    if any(isinstance(child, nn.AvgPool1d) for child in layer.children()):
        return None  # each key is a run of tokens, the end of a row and the start of the next
    grid = tokens_grid(traits, keys, image_size=seen.image_size)
    if grid is None or keys == 1:
        return None
    has_class_query = traits.has_class_token and (queries == 1 or grid.prefix_tokens > 0)
    return AttentionSite(path, heads, grid, has_class_query, queries)


def _with_heads(layer: nn.Module, shape: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """(B, A, M, N) of weights that may have lost their heads in the batch, or never had any."""
    if len(shape) == 4:
        batch, heads, queries, keys = shape
        return batch, heads, queries, keys
    heads = getattr(layer, "num_heads", 1)
    if len(shape) == 3 and shape[0] % heads == 0:
        return shape[0] // heads, heads, *shape[1:]
    return None


def _is_padded(seen: Probe, path: str, keys: int) -> bool:
    """Whether a single window holds more than the map of the block: then its form is its own."""
    block = seen.outputs.get(path.rpartition(".")[0])
    if block is None or block.ndim != 4:
        return False
    grid = map_grid(seen.network.traits, tuple(block.shape), seen.image_size)
    return grid is None or grid.height * grid.width != keys
