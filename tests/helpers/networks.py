"""Networks of a user's own, as they are written: no name in them is one that the program knows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Convolutions(nn.Module):
    """A CNN that says which images it takes."""

    def __init__(self, num_classes: int = 4, width: int = 16) -> None:
        super().__init__()
        self.image_size = 64
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU(True)
        )
        self.body = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.ReLU(inplace=True))
        self.out = nn.Linear(2 * width, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.out(self.body(self.stem(image)).mean((2, 3)))
        return logits


class Block(nn.Module):
    """A block of a ViT, its attention by torch's own layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixing = nn.MultiheadAttention(width, 4, batch_first=True)
        self.dense = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.before(x)
        x = x + self.mixing(y, y, y, need_weights=False)[0]
        dense: Tensor = self.dense(self.after(x))
        return x + dense


class Tokens(nn.Module):
    """A ViT with a class token and two registers, that answers with a dictionary."""

    def __init__(self, classes: int, depth: int = 2, width: int = 32) -> None:
        super().__init__()
        self.cut = nn.Conv2d(3, width, 16, 16)
        self.special = nn.Parameter(torch.randn(1, 3, width))
        self.where = nn.Parameter(torch.randn(1, 19, width) / 5)
        self.stack = nn.Sequential(*(Block(width) for _ in range(depth)))
        self.final = nn.LayerNorm(width)
        self.decision = nn.Linear(width, classes)

    def forward(self, image: Tensor) -> dict[str, Any]:
        patches = self.cut(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.special.expand(len(image), -1, -1), patches], 1) + self.where
        return {"logits": self.decision(self.final(self.stack(x))[:, 0]), "loss": None}


class Wrapped(nn.Module):
    """What is given a network, as configurations of Hydra do it."""

    def __init__(self, net: nn.Module, optimizer: Any = None) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor) -> tuple[Tensor, str]:
        return self.net(image), "what else"


class Embedding(nn.Module):
    """An encoder that ends in a norm, not in a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 2, 1)
        self.norm = nn.LayerNorm(8)

    def forward(self, image: Tensor) -> Tensor:
        vector: Tensor = self.norm(self.conv(image).relu().mean((2, 3)))
        return vector


class Combined(Convolutions):
    """A CNN whose logits are of two layers, joined or not."""

    def __init__(self, num_classes: int = 4, *, joined: bool = True) -> None:
        super().__init__(num_classes)
        self.beside, self.joined = nn.Linear(32, num_classes), joined

    def forward(self, image: Tensor) -> Tensor:
        vector = self.body(self.stem(image)).mean((2, 3))
        logits, others = self.out(vector) * 1.5, self.beside(vector)
        return logits + others if self.joined else logits


class Adapted(Convolutions):
    """A CNN with a low-rank adapter, which merges as loralib's do, when evaluation begins."""

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__(num_classes)
        self.down, self.up = nn.Linear(32, 2, bias=False), nn.Linear(2, num_classes, bias=False)
        self.merged = False

    def train(self, mode: bool = True) -> Adapted:
        super().train(mode)
        if not mode and not self.merged:
            with torch.no_grad():
                self.out.weight += self.up.weight @ self.down.weight
            self.merged = True
        return self

    def forward(self, image: Tensor) -> Tensor:
        vector = self.body(self.stem(image)).mean((2, 3))
        logits: Tensor = self.out(vector)
        return logits if self.merged else logits + self.up(self.down(vector))


class Perceptron(Convolutions):
    """A CNN with a classifier of two layers, and a softmax behind it."""

    def __init__(self, num_classes: int = 4) -> None:
        super().__init__()
        self.out = nn.Sequential(nn.Linear(32, 9), nn.ReLU(), nn.Linear(9, num_classes))  # type: ignore[assignment]

    def forward(self, image: Tensor) -> Tensor:
        return super().forward(image).softmax(1)
