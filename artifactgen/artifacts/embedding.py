"""Embeddings: the encoder's feature vectors."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from artifactgen.artifacts.base import Artifact, BoundArtifact, Subject, Tensors
from artifactgen.errors import ConfigError
from artifactgen.introspect.forward import Pass
from artifactgen.introspect.grid import grid_of

Pooling = Literal["auto", "cls", "mean", "cls+mean", "max", "none"]


_PLAIN: tuple[Pooling, ...] = ("cls", "mean", "max")
"""What a model may feed its classifier with, without anything in between."""


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
        return BoundEmbedding(self, subject, _came_to(self.pooling, subject))


@dataclass(frozen=True, slots=True)
class BoundEmbedding(BoundArtifact):
    """Computes `embeddings`, float32 (B, D), or (B, D, h, w) for `pooling=none`."""

    columns = ("embeddings",)

    options: Embedding
    subject: Subject
    came_to: str
    """The pooling, `auto` resolved."""

    def compute(self, forward_pass: Pass) -> Tensors:
        pooling = self.options.pooling
        pooled = forward_pass.pre_logits_BD if pooling == "auto" else self._pool(forward_pass)
        return {"embeddings": pooled.float()}

    def _pool(self, forward_pass: Pass) -> Tensor:
        return _pool(self.options.pooling, forward_pass.features, self.subject)

    def calibrate(self, forward_pass: Pass) -> BoundEmbedding:
        self.compute(forward_pass)
        return self

    def resolved(self) -> dict[str, Any]:
        return {"pooling": self.came_to}


def _pool(pooling: Pooling, features: Any, subject: Subject) -> Tensor:
    """Features as one vector, (B, D), or for `none` as a map, (B, D, h, w)."""
    features = subject.network.positions(features)
    if not isinstance(features, Tensor) or features.ndim < 3:
        raise ConfigError(
            f"pooling={pooling}: {type(subject.model).__name__} has features of several branches, "
            "or none of positions. Use pooling=auto."
        )
    class_token_BD = features[:, 0]
    if pooling == "cls":
        return class_token_BD
    grid = grid_of(subject.network.traits, features, image_size=subject.image_size)
    features_BDhw = grid(features)
    if pooling == "none":
        return features_BDhw
    if pooling == "max":
        return features_BDhw.amax((2, 3))
    mean_BD = features_BDhw.mean((2, 3))
    return mean_BD if pooling == "mean" else torch.cat([class_token_BD, mean_BD], 1)


def _came_to(pooling: Pooling, subject: Subject) -> str:
    """Which pooling `auto` equals, as one image shows; `pre_logits` where it equals none.

    So it is called where a norm or another layer stands between the pooling and the classifier.
    """
    if pooling != "auto":
        return pooling
    features, expected_BD = subject.probe.features, subject.probe.pre_logits_BD
    assert expected_BD is not None
    for name in _PLAIN:
        if name == "cls" and not subject.network.traits.has_class_token:
            continue
        with suppress(ConfigError):  # there is no grid, or there are several branches
            found_BD = _pool(name, features, subject)
            if found_BD.shape == expected_BD.shape and torch.allclose(
                found_BD, expected_BD, rtol=1e-4, atol=1e-5
            ):
                return name
    return "pre_logits"
