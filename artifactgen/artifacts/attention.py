"""Attention maps: where a transformer looks, head by head.

The class token's row of softmax(q·kᵀ·scale) as in Caron et al., "Emerging Properties in
Self-Supervised Vision Transformers", ICCV 2021, https://arxiv.org/abs/2104.14294, and attention
rollout as in Abnar and Zuidema, "Quantifying Attention Flow in Transformers", ACL 2020,
https://arxiv.org/abs/2005.00928. Fused attention stays on: queries and keys are read where the
model projects them, and only the rows that are asked for are computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from timm.layers import Attention
from torch import Tensor

from artifactgen.artifacts.forward import Pass, Taps
from artifactgen.artifacts.kind import Arrays, Excerpt, Picture, Subject, View
from artifactgen.errors import ConfigError
from artifactgen.models.layers import attention_layers, token_grid
from artifactgen.rendering.colormaps import DEFAULT_COLORMAP
from artifactgen.rendering.figure import AttentionFigure
from artifactgen.rendering.layout import FigureLayout
from artifactgen.rendering.png import encode_png
from artifactgen.store.layout import attention_file

Method = Literal["cls", "mean_query", "rollout"]
_QUERY_NAMES: dict[Method, str] = {
    "cls": "class-token attention",
    "mean_query": "attention, mean over patch queries",
    "rollout": "attention rollout",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionMaps:
    """Options of attention maps."""

    method: Method = "cls"
    """`cls`: the class token's row; `mean_query`: the mean over the patches' rows; `rollout`:
    attention through all blocks up to the last of `layers`, heads averaged."""
    layers: tuple[int, ...] = (-1,)
    """Block indices; negative ones count from the end."""
    colormap: str = DEFAULT_COLORMAP
    """Any name of matplotlib."""

    def bind(self, subject: Subject) -> BoundAttention:
        """Resolve blocks against a model.

        Raises:
            UnsupportedError: the model has no attention, or of a kind that is not read yet.
            ConfigError: a block that there is not, or `cls` without a class token.
        """
        paths = attention_layers(subject.model)
        if not self.layers:
            raise ConfigError("attention.layers is empty: give block indices such as [-1].")
        blocks = tuple(dict.fromkeys(_block_index(index, len(paths)) for index in self.layers))
        if self.method == "cls" and getattr(subject.model, "cls_token", None) is None:
            raise ConfigError(
                f"attention.method=cls: {type(subject.model).__name__} has no class token.\n"
                "Set attention.method=mean_query (or rollout)."
            )
        read = tuple(range(max(blocks) + 1)) if self.method == "rollout" else blocks
        layers = tuple(paths[index] for index in read)
        return BoundAttention(self, subject, blocks, layers, self._figure(subject, blocks))

    def _figure(self, subject: Subject, blocks: Sequence[int]) -> AttentionFigure:
        heads = _attention(subject, f"blocks.{blocks[0]}.attn").num_heads
        names = tuple(f"Block {index}" for index in blocks)
        if self.method == "rollout":
            heads, names = 1, (f"Blocks 0–{max(blocks)}",)
        layout = FigureLayout(heads, names, subject.image_size, subject.frame_names)
        return AttentionFigure(layout, colormap=self.colormap)


def _block_index(index: int, blocks: int) -> int:
    if -blocks <= index < blocks:
        return index % blocks
    raise ConfigError(
        f"attention.layers: there is no block {index}; the model has blocks 0 to {blocks - 1}."
    )


@dataclass(frozen=True, slots=True)
class BoundAttention:
    """Computes `attention`, float32 (B, L, A, h, w): probabilities from the query to each patch.

    For `rollout`, L and A are 1.
    """

    options: AttentionMaps
    subject: Subject
    blocks: tuple[int, ...]
    paths: tuple[str, ...]
    """Modules whose attention is read: the blocks', or all up to the last for a rollout."""
    figure: AttentionFigure
    taps: Taps = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "taps", Taps(outputs=tuple(f"{p}.qkv" for p in self.paths)))

    def compute(self, run: Pass) -> Arrays:
        prefix = int(getattr(self.subject.model, "num_prefix_tokens", 0))
        if self.options.method == "rollout":
            rows_BLAN = self._rollout(run, prefix)[:, None, None]
        else:
            rows_BLAN = torch.stack([self._rows(run, path, prefix) for path in self.paths], 1)
        patches_BLAN = rows_BLAN[..., prefix:]
        grid = token_grid(self.subject.model, patches_BLAN.shape[-1], image_size=run.image_size)
        attention_BLAhw = patches_BLAN.reshape(*patches_BLAN.shape[:-1], *grid)
        return {"attention": attention_BLAhw.cpu().numpy()}

    def _rows(self, run: Pass, path: str, prefix: int) -> Tensor:
        """Attention of the query to every token, (B, A, N)."""
        query_BAND, key_BAND = self._query_key(run, path)
        if self.options.method == "cls":
            return _softmax_rows(query_BAND[:, :, :1], key_BAND)[:, :, 0]
        return _softmax_rows(query_BAND[:, :, prefix:], key_BAND).mean(2)

    def _rollout(self, run: Pass, prefix: int) -> Tensor:
        """Attention flow from the query to every token of the input, (B, N)."""
        flow_BNN: Tensor | None = None
        for path in self.paths:
            attention_BNN = _softmax_rows(*self._query_key(run, path)).mean(1)
            residual_NN = torch.eye(attention_BNN.shape[-1], device=attention_BNN.device)
            step_BNN = (attention_BNN + residual_NN) / 2
            flow_BNN = step_BNN if flow_BNN is None else step_BNN @ flow_BNN
        assert flow_BNN is not None
        has_class_token = getattr(self.subject.model, "cls_token", None) is not None
        return flow_BNN[:, 0] if has_class_token else flow_BNN[:, prefix:].mean(1)

    def _query_key(self, run: Pass, path: str) -> tuple[Tensor, Tensor]:
        """Queries (scaled) and keys as the softmax takes them, (B, A, N, head width), float32."""
        layer = _attention(self.subject, path)
        qkv_BNX = run.outputs[f"{path}.qkv"]
        qkv_BN3AD = qkv_BNX.reshape(*qkv_BNX.shape[:2], 3, layer.num_heads, layer.head_dim)
        qkv = qkv_BN3AD.permute(2, 0, 3, 1, 4)
        with torch.no_grad():
            # In float32, as autocast runs norms within the model.
            query, key = layer.q_norm(qkv[0].float()), layer.k_norm(qkv[1].float())
        return query * layer.scale, key

    def check(self, run: Pass) -> None:
        pass

    def draw(self, view: View, arrays: Arrays) -> Iterator[Picture]:
        picture = self.figure.draw(
            view.images,
            arrays["attention"],
            title=view.sample.record_id,
            subtitle=self._subtitle(view),
        )
        text = {
            **view.provenance,
            "Record": view.sample.record_id,
            "Method": f"attention, {self.options.method}",
            "Layer": ", ".join(f"blocks.{index}" for index in self.blocks),
        }
        yield attention_file(view.sample.record_id), encode_png(picture, text)

    def _subtitle(self, view: View) -> str:
        parts = []
        if view.label is not None:
            parts.append(f"label {view.label}")
        if view.prediction is not None:
            parts.append(f"predicted {view.prediction} ({view.probability:.2f})")
        return "  ·  ".join([*parts, _QUERY_NAMES[self.options.method]])

    def excerpts(
        self, files: Sequence[str], *, label: int | None, prediction: int | None
    ) -> tuple[Excerpt, ...]:
        title = "Rollout" if self.options.method == "rollout" else "Mean attention"
        last_block = self.figure.geometry.bands[-1]
        return (Excerpt(title, next(iter(files), None), last_block.means[0]),)

    def columns(self) -> tuple[str, ...]:
        return ()

    def maps(self) -> tuple[str, ...]:
        return ("attention",)

    def describe(self) -> dict[str, Any]:
        has_class_token = getattr(self.subject.model, "cls_token", None) is not None
        by_class_token = self.options.method != "mean_query" and has_class_token
        return {
            "method": self.options.method,
            "layers": list(self.blocks),
            "query": "class token" if by_class_token else "mean over patches",
        }


def _softmax_rows(query_BAMD: Tensor, key_BAND: Tensor) -> Tensor:
    """softmax(q·kᵀ) over the keys, (B, A, M, N)."""
    return (query_BAMD @ key_BAND.transpose(2, 3)).softmax(-1)


def _attention(subject: Subject, path: str) -> Attention:
    layer = subject.model.get_submodule(path)
    assert isinstance(layer, Attention)
    return layer
