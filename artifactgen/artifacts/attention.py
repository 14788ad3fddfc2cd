"""Attention maps: where a transformer looks, head by head.

The class token's row of softmax(q·kᵀ·scale) as in Caron et al., "Emerging Properties in
Self-Supervised Vision Transformers", ICCV 2021, https://arxiv.org/abs/2104.14294, and attention
rollout as in Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020,
https://arxiv.org/abs/2005.00928. Fused attention stays on: its queries and keys are read on their
way, and only the rows that are asked for are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from artifactgen.artifacts.attention_rows import FirstRow, HeadMean, MeanRow, WindowMean, rollout
from artifactgen.artifacts.base import (
    Arrays,
    Artifact,
    BoundArtifact,
    Excerpt,
    Excerpts,
    Picture,
    Subject,
    Tensors,
    View,
)
from artifactgen.errors import ConfigError
from artifactgen.introspect.forward import Pass
from artifactgen.introspect.sites import AttentionSite, attention_sites
from artifactgen.introspect.taps import Reader, Taps
from artifactgen.rendering.colormaps import DEFAULT_COLORMAP
from artifactgen.rendering.figure.attention import AttentionFigure
from artifactgen.rendering.figure.forms import AttentionFigures, mean_panel
from artifactgen.rendering.figure.geometry import FigureSpec, Rect
from artifactgen.rendering.png import encode_png
from artifactgen.store.layout import safe_name

_LEAST_PEAK = 1.5
"""Of attention that singles out anything, the strongest patch by the mean of all."""

Method = Literal["cls", "mean_query", "rollout"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionMaps(Artifact):
    """Options of attention maps."""

    files: ClassVar[tuple[str, ...]] = ("attention_maps/*_attention.png",)

    method: Method = "cls"
    """`cls`: the class token's row, or the mean over the patches' rows where the model has no class
    token or does not classify by it; `mean_query`: the mean over the patches' rows in any case;
    `rollout`: attention through all blocks up to the last of `layers`, heads averaged."""
    layers: tuple[int, ...] = (-1,)
    """Indices of the blocks with attention, first to last; negative ones count from the end."""
    colormap: str = DEFAULT_COLORMAP
    """Any name of matplotlib."""

    def bind(self, subject: Subject) -> BoundAttention:
        """Find the attention of a model, by one image that goes through it.

        Raises:
            UnsupportedError: the model computes none that can be shown.
            ConfigError: a block that there is not, or blocks that do not go together.
        """
        sites = attention_sites(subject.probe)
        if not self.layers:
            raise ConfigError("attention.layers is empty: give block indices such as [-1].")
        blocks = tuple(dict.fromkeys(_block_index(index, len(sites)) for index in self.layers))
        if self.method == "rollout":
            chosen = _rollout_sites(sites[: max(blocks) + 1])
        else:
            chosen = tuple(sites[index] for index in blocks)
            _require_alike(blocks, chosen)
        return BoundAttention(self, subject, blocks, chosen, self._figures(subject, blocks, chosen))

    def _figures(
        self, subject: Subject, blocks: Sequence[int], sites: Sequence[AttentionSite]
    ) -> AttentionFigures:
        heads, names = sites[0].heads, tuple(f"Block {index}" for index in blocks)
        only_map = ""
        if self.method == "rollout":
            heads, names, only_map = 1, (f"Blocks 0–{max(blocks)}",), "Rollout"
        layout = FigureSpec(
            heads,
            names,
            subject.image_size,
            subject.frame_names,
            only_map=only_map,
            tokens=sites[-1].grid.tokens,
        )
        return AttentionFigures(layout, colormap=self.colormap)


def _block_index(index: int, blocks: int) -> int:
    if -blocks <= index < blocks:
        return index % blocks
    raise ConfigError(
        f"attention.layers: there is no block {index}; the model has blocks 0 to {blocks - 1}."
    )


def _require_alike(blocks: Sequence[int], sites: Sequence[AttentionSite]) -> None:
    """One array holds all blocks: they must have equally many heads and positions."""
    first = sites[0]
    for block, site in zip(blocks, sites, strict=True):
        if (site.heads, site.grid.size) != (first.heads, first.grid.size):
            raise ConfigError(
                f"attention.layers: blocks {blocks[0]} ({_form(first)}) and {block} ({_form(site)})"
                " differ. Choose blocks of one stage, or one block."
            )


def _form(site: AttentionSite) -> str:
    return f"{site.heads} heads, {site.grid.height} × {site.grid.width}"


def _rollout_sites(sites: Sequence[AttentionSite]) -> tuple[AttentionSite, ...]:
    """The sites, if attention can be followed through all of them."""
    tokens = sites[-1].grid.tokens
    for index, site in enumerate(sites):
        if site.windows or site.queries != tokens or site.grid.tokens != tokens:
            raise ConfigError(
                f"attention.method=rollout: attention cannot be followed through block {index} "
                f"({site.path}): its queries and keys are not all of the same {tokens} tokens. "
                "Set attention.method=cls or mean_query."
            )
    return tuple(sites)


@dataclass(frozen=True, slots=True)
class BoundAttention(BoundArtifact):
    """Computes `attention`, float32 (B, L, A, h, w): probabilities from the query to each patch.

    For `rollout`, L and A are 1.
    """

    maps = ("attention",)

    options: AttentionMaps
    subject: Subject
    blocks: tuple[int, ...]
    sites: tuple[AttentionSite, ...]
    """Where attention is read: the blocks, or all up to the last for a rollout."""
    figures: AttentionFigures
    taps: Taps = field(init=False)

    def __post_init__(self) -> None:
        readers = tuple((site.path, self._reader(site)) for site in self.sites)
        object.__setattr__(self, "taps", Taps(attention=readers))

    @property
    def figure(self) -> AttentionFigure:
        """Of pictures of the model's input size."""
        return self.figures.own

    @property
    def query(self) -> Literal["class token", "pooling query", "mean over patches"]:
        """Whose attention is shown: the class token's only where the model's output is its."""
        site = self.sites[-1]
        if site.queries == 1:
            return "class token" if site.has_class_query else "pooling query"
        if self.options.method == "mean_query" or not site.has_class_query:
            return "mean over patches"
        pools_patches = self.subject.network.traits.pools_patches
        return "mean over patches" if pools_patches else "class token"

    def _reader(self, site: AttentionSite) -> Reader:
        if self._is_rollout:
            return HeadMean(site.heads)
        if site.windows:
            return WindowMean(site.heads, site.windows)
        if self.query == "mean over patches":
            return MeanRow(site.heads, site.grid.prefix_tokens)
        return FirstRow(site.heads)

    @property
    def _is_rollout(self) -> bool:
        return self.options.method == "rollout"

    def compute(self, forward_pass: Pass) -> Tensors:
        kept = [forward_pass.attention[tap] for tap in self.taps.attention]
        if self._is_rollout:
            skipped = self.sites[-1].grid.prefix_tokens
            query = slice(0, 1) if self.query == "class token" else slice(skipped, None)
            rows_BLAN = rollout(kept, query)[:, None, None]
        else:
            rows_BLAN = torch.stack(kept, 1)
        grid = self.sites[-1].grid
        patches_BLAN = rows_BLAN[..., grid.prefix_tokens :]
        return {"attention": torch.unflatten(patches_BLAN, -1, grid.size)}

    def picture(self, view: View, arrays: Arrays) -> NDArray[np.uint8]:
        """The figure of one record, (H, W, 3) RGB."""
        canvas = view.canvas
        return self.figures.of(canvas.size).draw(
            canvas.images,
            arrays["attention"],
            title=view.sample.record_id,
            subtitle=self._subtitle(view),
            region=canvas.region,
        )

    def draw(self, view: View, arrays: Arrays) -> Iterator[Picture]:
        text = {
            **view.provenance,
            "Record": view.sample.record_id,
            "Method": self._what(),
            "Layer": ", ".join(site.path for site in self.sites),
            **view.canvas.text,
        }
        name = safe_name(view.sample.record_id)
        yield f"attention_maps/{name}_attention.png", encode_png(self.picture(view, arrays), text)

    def _subtitle(self, view: View) -> str:
        parts = []
        if view.label is not None:
            parts.append(f"label {view.label}")
        if view.prediction is not None:
            parts.append(f"predicted {view.prediction} ({view.probability:.2f})")
        return "  ·  ".join([*parts, self._what()])

    def _what(self) -> str:
        """What the figure shows, in words."""
        if self._is_rollout:
            return "attention rollout"
        if self.query != "mean over patches":
            return {"class token": "class-token attention"}.get(self.query, "attention pooling")
        within = " within windows" if any(site.windows for site in self.sites) else ""
        return f"attention{within}, mean over queries"

    def doubts(self, arrays: Arrays) -> list[str]:
        """Say so where no head of a block prefers any patch by much."""
        maps_BLAhw = arrays["attention"]
        even = maps_BLAhw.mean((-2, -1))
        peaks_BLA = maps_BLAhw.max((-2, -1)) / np.where(even > 0, even, 1)
        peaks_L = peaks_BLA.max(2).mean(0)  # one head that singles out something is enough
        names = self.figure.spec.blocks
        return [
            f"Attention, {name.lower()}: nearly even over the image (the strongest patch of any "
            f"head gets {peak:.1f} times the mean), so its colours show noise. Choose other blocks "
            "by attention.layers."
            for name, peak in zip(names, peaks_L, strict=True)
            if peak < _LEAST_PEAK
        ]

    @property
    def excerpts(self) -> Excerpts:
        title = "Rollout" if self._is_rollout else "Mean attention"
        return partial(_excerpt, title, partial(mean_panel, self.figure.spec))

    def resolved(self) -> dict[str, Any]:
        return {
            "method": self.options.method,
            "layers": list(range(len(self.sites))) if self._is_rollout else list(self.blocks),
            "query": self.query,
        }


def _excerpt(
    title: str,
    region: Callable[[tuple[int, int]], Rect],
    files: Sequence[str],
    *,
    label: int | None,
    prediction: int | None,
) -> tuple[Excerpt, ...]:
    """The mean over heads, laid over the image."""
    return (Excerpt(title, next(iter(files), None), region),)
