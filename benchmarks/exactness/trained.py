"""Small models as users have them: of transformers, torchvision and Lightning, weights random."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from lightning import LightningModule
from torch import Tensor, nn
from torchvision import models

from artifactgen.models.base import Family
from artifactgen.models.hooked import logits_of
from artifactgen.models.huggingface import HuggingFace
from artifactgen.models.module import Module
from artifactgen.models.torchvision import Torchvision
from benchmarks.exactness import reference

SIDE, CLASSES = 64, 5
VIT = {
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "image_size": SIDE,
    "patch_size": 16,
}
_TEXT = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "vocab_size": 99,
    "bos_token_id": 97,
    "eos_token_id": 98,
    "pad_token_id": 0,
}


class Lit(LightningModule):
    """A ViT of torch's own layers, as a user trains it."""

    def __init__(self, width: int = 48, classes: int = CLASSES) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, width, 16, 16)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        layer = nn.TransformerEncoderLayer(
            *(width, 3, 2 * width, 0.0), batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.decide = nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits (B, K)."""
        x = self.cut(image).flatten(2).transpose(1, 2)
        x = self.blocks(torch.cat([self.token.expand(len(x), -1, -1), x], 1))
        logits: Tensor = self.decide(self.norm(x)[:, 0])
        return logits


class Similarity(nn.Module):
    """An image against texts, by a whole CLIP or SigLIP."""

    def __init__(self, model: Any, words_KN: Tensor) -> None:
        super().__init__()
        self.model, self.words_KN = model, words_KN

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, K)."""
        logits: Tensor = self.model(input_ids=self.words_KN, pixel_values=x_BCHW).logits_per_image
        return logits


class Plain(nn.Module):
    """A model that gives a tensor, as pytorch-grad-cam needs it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Logits (B, K)."""
        return logits_of(self.model(x_BCHW))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A user's own model, and the same for the program."""

    model: nn.Module
    """Gives logits as a tensor; attention written out. The user's is its `model`."""
    embed: Callable[[Tensor], Tensor]
    """What their classifier gets, or what they compare with texts, (B, D)."""
    family: Family
    checkpoint: Path


Make = Callable[[Path], Trained]
"""Saves the model in a folder, as its library does."""


def huggingface(kind: str, **options: Any) -> Make:
    """A classifier of transformers."""

    def make(folder: Path) -> Trained:
        made = transformers.AutoModelForImageClassification.from_config(
            transformers.AutoConfig.for_model(kind, num_labels=CLASSES, **options)
        )
        roughen(made).save_pretrained(folder)
        model = transformers.AutoModelForImageClassification.from_pretrained(
            folder, attn_implementation="eager"
        )
        return _trained(model, "classifier", HuggingFace(path=str(folder)), folder)

    return make


def compared(kind: str, **options: Any) -> Make:
    """A CLIP or SigLIP, and texts that classify."""

    def make(folder: Path) -> Trained:
        text = _TEXT | ({"projection_size": VIT["hidden_size"]} if kind == "siglip" else {})
        config = {"vision_config": VIT, "text_config": text, **options}
        made = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(kind, **config))
        roughen(made).save_pretrained(folder)
        model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
        words_KN = torch.randint(3, 97, (CLASSES, 9), generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            features = model.get_text_features(words_KN).pooler_output
        torch.save(features, folder / "texts.pt")
        return Trained(
            model=Similarity(model, words_KN).eval(),
            embed=lambda x_BCHW: model.get_image_features(x_BCHW).pooler_output,
            family=HuggingFace(path=str(folder), text_features=str(folder / "texts.pt")),
            checkpoint=folder / "model.safetensors",
        )

    return make


def torchvision(name: str, classifier: str, *, side: int = SIDE, **options: Any) -> Make:
    """A model of torchvision, by its `state_dict`."""

    def make(folder: Path) -> Trained:
        model = roughen(models.get_model(name, num_classes=CLASSES, **options))
        family = Torchvision(backbone=name, image_size=(side, side))
        return _trained(model, classifier, family, _saved(model.state_dict(), folder))

    return make


def lightning(folder: Path) -> Trained:
    """A LightningModule, by what a Trainer keeps of it."""
    model = roughen(Lit())
    target = f"{Lit.__module__}.{Lit.__name__}"
    family = Module(target=target, image_size=(SIDE, SIDE))
    return _trained(model, "decide", family, _saved({"state_dict": model.state_dict()}, folder))


def roughen(model: Any) -> Any:
    """Norms, biases and tokens random too: at ones and zeros, many mistakes do not show."""
    torch.manual_seed(0)
    reference.roughen(model, least=0.05, share=0.3)
    return model.eval()


def _saved(content: Mapping[str, Any], folder: Path) -> Path:
    path = folder / "weights.ckpt"
    torch.save(content, path)
    return path


def _trained(model: Any, classifier: str, family: Family, place: Path) -> Trained:
    return Trained(
        model=Plain(model).eval(),
        embed=lambda x_BCHW: _arriving(model, classifier, x_BCHW),
        family=family,
        checkpoint=place / "model.safetensors" if place.is_dir() else place,
    )


def _arriving(model: nn.Module, classifier: str, x_BCHW: Tensor) -> Tensor:
    arrived: list[Tensor] = []

    def keep(_module: nn.Module, inputs: Sequence[Tensor]) -> None:
        arrived.append(inputs[0].flatten(1))

    with model.get_submodule(classifier).register_forward_pre_hook(keep):
        model(x_BCHW)
    return arrived[0]
