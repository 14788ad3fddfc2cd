"""Embeddings: the encoder's feature vectors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from artifactgen.artifacts.base import Artifact, BoundArtifact, Subject, Tensors
from artifactgen.errors import ConfigError
from artifactgen.introspect.forward import Pass
from artifactgen.introspect.grid import grid_of

Pooling = Literal["auto", "cls", "mean", "cls+mean", "max", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedding(Artifact):
    """Options: how the features of an image become one vector."""

    pooling: Pooling = "auto"
    """`auto`: what the model feeds its classifier with. The others pool the output of timm's
    `forward_features`: the class token, the mean or maximum over patches (prefix tokens left
    out), class token and mean side by side, or no pooling at all (every position)."""

    def bind(self, subject: Subject) -> BoundEmbedding:
        """Resolve against a model; `ConfigError` if it has no class token to take."""
        if "cls" in self.pooling and not subject.network.traits.has_class_token:
            raise ConfigError(
                f"pooling={self.pooling}: {type(subject.model).__name__} has no class token. "
                "Use pooling=auto or pooling=mean."
            )
        return BoundEmbedding(self, subject)


@dataclass(frozen=True, slots=True)
class BoundEmbedding(BoundArtifact):
    """Computes `embeddings`, float32 (B, D), or (B, D, h, w) for `pooling=none`."""

    columns = ("embeddings",)

    options: Embedding
    subject: Subject

    def compute(self, forward_pass: Pass) -> Tensors:
        return {"embeddings": self._pool(forward_pass).float()}

    def _pool(self, forward_pass: Pass) -> Tensor:
        pooling, features = self.options.pooling, forward_pass.features
        if pooling == "auto":
            return forward_pass.pre_logits_BD
        if not isinstance(features, Tensor):
            raise ConfigError(
                f"pooling={pooling}: {type(self.subject.model).__name__} has features of "
                "several branches. Use pooling=auto."
            )
        class_token_BD = features[:, 0]
        if pooling == "cls":
            return class_token_BD
        grid = grid_of(self.subject.network.traits, features, image_size=forward_pass.image_size)
        features_BDhw = grid(features)
        if pooling == "none":
            return features_BDhw
        if pooling == "max":
            return features_BDhw.amax((2, 3))
        mean_BD = features_BDhw.mean((2, 3))
        return mean_BD if pooling == "mean" else torch.cat([class_token_BD, mean_BD], 1)

    def calibrate(self, forward_pass: Pass) -> BoundEmbedding:
        self._pool(forward_pass)
        return self

    def resolved(self) -> dict[str, Any]:
        return {"pooling": self.options.pooling}
