"""A vision transformer that was pre-trained as a masked autoencoder, fine-tuned or not.

He et al., CVPR 2022, https://arxiv.org/abs/2111.06377
"""

from __future__ import annotations

from dataclasses import dataclass

from artifactgen.models.base import Family
from artifactgen.models.timm import Timm
from artifactgen.types import Framing


@dataclass(frozen=True, kw_only=True)
class MaeViT(Timm):
    """A ViT of timm, with the normalisation that masked autoencoders are trained with."""

    def normalization(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """ImageNet's, where timm's own for a ViT is another."""
        return Family.normalization(self)

    def framing(self) -> Framing:
        """As the authors evaluate: https://github.com/facebookresearch/mae/blob/main/util/datasets.py."""
        usual = max(self.input_size()) <= 224
        return Framing(224 / 256 if usual else 1.0, "center", "bicubic")
