"""A classifier of text vectors: an image belongs to the class whose text it is most like.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
https://arxiv.org/abs/2103.00020
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from artifactgen.errors import ConfigError, printable

_KINDS = (".pt", ".pth", ".safetensors", ".npy")
_BROKEN = (RuntimeError, ValueError, TypeError, LookupError, EOFError, AttributeError)


@dataclass(frozen=True, slots=True, eq=False)
class TextVectors:
    """One vector for each class."""

    vectors_KD: Tensor
    """float32"""
    classes: tuple[str, ...] = ()
    """Their names, if the file has them."""


def read_text_vectors(path: Path) -> TextVectors:
    """Read a `.pt`, `.safetensors` or `.npy` of (K, D) vectors, with or without names of classes.

    A `.pt` holds the tensor, or `{"features": tensor, "classes": [names]}`; a `.safetensors` one
    tensor, and under `classes` of its metadata the names as JSON.

    Raises:
        ConfigError: there is no such file, or something else is in it.
    """
    where = f"model.text_features={path}"
    if not path.is_file():
        raise ConfigError(f"{where}: no such file.")
    if path.suffix.lower() not in _KINDS:
        raise ConfigError(f"{where}: give a file of the kind {', '.join(_KINDS)}.")
    try:
        features, classes = _read(path)
    except _broken() as error:
        text = printable(str(error).partition("\n")[0][:200])
        raise ConfigError(f"{where}: cannot be read ({type(error).__name__}: {text}).") from error
    if not isinstance(features, Tensor) or features.ndim != 2 or not len(features):
        shape = tuple(getattr(features, "shape", ())) or type(features).__name__
        raise ConfigError(f"{where}: holds {shape}, no (classes, width) tensor of vectors.")
    vectors_KD = features.detach().float()
    if not torch.isfinite(vectors_KD).all() or not vectors_KD.any(1).all():
        raise ConfigError(f"{where}: has vectors of zeros, NaN or infinity.")
    if classes and len(classes) != len(vectors_KD):
        raise ConfigError(
            f"{where}: {len(vectors_KD)} vectors, and names of {len(classes)} classes."
        )
    return TextVectors(vectors_KD, tuple(printable(str(name)) for name in classes))


def _broken() -> tuple[type[Exception], ...]:
    from pickle import UnpicklingError

    from safetensors import SafetensorError

    return (OSError, *_BROKEN, UnpicklingError, SafetensorError)


def _read(path: Path) -> tuple[Any, list[str]]:
    kind = path.suffix.lower()
    if kind == ".npy":
        return torch.from_numpy(np.load(path, allow_pickle=False)), []
    if kind == ".safetensors":
        return _read_safetensors(path)
    content = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(content, Mapping):
        return content.get("features"), list(content.get("classes") or [])
    return content, []


def _read_safetensors(path: Path) -> tuple[Any, list[str]]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        name = "features" if "features" in names or len(names) != 1 else names[0]
        classes = list(json.loads((file.metadata() or {}).get("classes", "[]")))
        return file.get_tensor(name), classes


class TextClassifier(nn.Module):
    """Cosine of the image's embedding and the text of each class, scaled as in training."""

    vectors_KD: Tensor

    def __init__(self, vectors_KD: Tensor) -> None:
        super().__init__()
        # No weight of the checkpoint: it comes from a file of its own.
        self.register_buffer("vectors_KD", functional.normalize(vectors_KD), persistent=False)

    def forward(self, image_BD: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
        """exp(scale) · cosine + bias, (B, K)."""
        cosine_BK = functional.normalize(image_BD) @ self.vectors_KD.T
        logits_BK = scale.exp() * cosine_BK
        return logits_BK if bias is None else logits_BK + bias
