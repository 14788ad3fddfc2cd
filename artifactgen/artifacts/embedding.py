"""Embeddings: the encoder's feature vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from artifactgen.artifacts.base import Arrays, Excerpt, Picture, Subject, Tensors, Trial, View
from artifactgen.errors import ConfigError
from artifactgen.introspect.forward import Pass, Taps
from artifactgen.introspect.grid import grid_of, has_class_token

Pooling = Literal["auto", "cls", "mean", "cls+mean", "max", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding:
    """Options: how the features of an image become one vector."""

    pooling: Pooling = "auto"
    """`auto`: what the model feeds its classifier with. The others pool the output of timm's
    `forward_features`: the class token, the mean or maximum over patches (prefix tokens left
    out), class token and mean side by side, or no pooling at all (every position)."""

    def bind(self, subject: Subject) -> BoundEmbedding:
        """Resolve against a model; `ConfigError` if it has no class token to take."""
        if "cls" in self.pooling and not has_class_token(subject.model):
            raise ConfigError(
                f"pooling={self.pooling}: {type(subject.model).__name__} has no class token. "
                "Use pooling=auto or pooling=mean."
            )
        return BoundEmbedding(self.pooling, subject)


@dataclass(frozen=True, slots=True)
class BoundEmbedding:
    """Computes `embeddings`, float32 (B, D), or (B, D, h, w) for `pooling=none`."""

    pooling: Pooling
    subject: Subject
    taps = Taps()

    def compute(self, run: Pass) -> Tensors:
        return {"embeddings": self._pool(run).float()}

    def _pool(self, run: Pass) -> Tensor:
        if self.pooling == "auto":
            return run.pre_logits_BD
        if not isinstance(run.features, Tensor):
            raise ConfigError(
                f"pooling={self.pooling}: {type(self.subject.model).__name__} has features of "
                "several branches. Use pooling=auto."
            )
        class_token_BD = run.features[:, 0]
        if self.pooling == "cls":
            return class_token_BD
        grid = grid_of(self.subject.model, run.features, image_size=run.image_size)
        features_BDhw = grid(run.features)
        if self.pooling == "none":
            return features_BDhw
        if self.pooling == "max":
            return features_BDhw.amax((2, 3))
        mean_BD = features_BDhw.mean((2, 3))
        return mean_BD if self.pooling == "mean" else torch.cat([class_token_BD, mean_BD], 1)

    def settle(self, run: Pass) -> Embedding:
        self._pool(run)
        return Embedding(pooling=self.pooling)

    def trial(self) -> Trial:
        return Trial(self)

    def draw(self, view: View, arrays: Arrays) -> Iterator[Picture]:
        yield from ()

    def excerpts(
        self, files: Sequence[str], *, label: int | None, prediction: int | None
    ) -> tuple[Excerpt, ...]:
        return ()

    def columns(self) -> tuple[str, ...]:
        return ("embeddings",)

    def maps(self) -> tuple[str, ...]:
        return ()

    def describe(self) -> dict[str, Any]:
        return {"pooling": self.pooling}
