"""Fits the demo's model: a small vision transformer, from scratch, on 60 patients, in a minute.

So few patients teach a transformer little by their diagnosis alone. It learns three things at once:

- which group the patient belongs to;
- how much of each structure is in each patch, from the phantoms' true labels;
- to find the evidence for the group in the heart: its GradCAM is part of the loss, as in "Tell Me
  Where to Look" (Li et al., CVPR 2018, https://arxiv.org/abs/1802.10171).

Array names: B batch, C channels, H W pixels, h w patches, N tokens (class token first), D width,
S = 6 structures: RV cavity, myocardium, LV cavity at ED, then at ES.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from artifactgen.models.spec import ModelSpec, build_model

STRUCTURE_CELLS = 4
"""Structures are kept on a grid this much finer than the patches, to be moved with the image."""
_STRUCTURES = 6
_PATCH_WEIGHT, _EVIDENCE_WEIGHT = 5.0, 0.3
_TINY = 1e-6


@dataclass(frozen=True, slots=True)
class Cohort:
    """Patients in memory."""

    image_BCHW: Tensor
    label_B: Tensor
    structure_BSHW: Tensor
    """Share of each structure in each cell, `STRUCTURE_CELLS` cells to a patch and axis."""

    def __len__(self) -> int:
        return len(self.label_B)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how fast to train."""

    steps: int = 500
    batch_size: int = 20
    learning_rate: float = 3e-3
    seed: int = 2022


def fit(spec: ModelSpec, cohort: Cohort, schedule: Schedule) -> Any:
    """Train a `VisionTransformer` of timm from scratch.

    The same seed gives the same weights on one kind of processor with as many threads.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(schedule.seed)
        model: Any = build_model(spec).requires_grad_(True).train()
        _initialize(model)
        _train(model, nn.Linear(model.embed_dim, _STRUCTURES), cohort, schedule)
    return model.requires_grad_(False).eval()


@torch.no_grad()
def count_correct(model: nn.Module, cohort: Cohort) -> int:
    """How many patients the model puts into their group."""
    return int((model(cohort.image_BCHW).argmax(dim=1) == cohort.label_B).sum())


@torch.no_grad()
def _initialize(model: Any) -> None:
    """Start larger than timm's 0.02, with which a model so narrow is blind for too many steps."""
    model.pos_embed.mul_(10)
    nn.init.xavier_uniform_(model.patch_embed.proj.weight.flatten(1))
    for block in model.blocks:
        nn.init.xavier_uniform_(block.attn.qkv.weight[2 * model.embed_dim :])
        nn.init.xavier_uniform_(block.attn.proj.weight)


def _train(model: Any, patch_head: nn.Linear, cohort: Cohort, schedule: Schedule) -> None:
    parameters = [*model.parameters(), *patch_head.parameters()]
    optimizer = torch.optim.AdamW(parameters, schedule.learning_rate, weight_decay=0.05)
    pace = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, schedule.learning_rate, total_steps=schedule.steps, pct_start=0.2
    )
    with _last_tokens(model) as tokens:
        for _ in range(schedule.steps):
            chosen = torch.randperm(len(cohort))[: schedule.batch_size]
            batch = _augment(cohort, chosen)
            loss = _loss(model, patch_head, batch, tokens)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            pace.step()


@contextmanager
def _last_tokens(model: Any) -> Iterator[list[Tensor]]:
    """Keep what enters the last attention, (B, N, D), of the latest forward pass in a list."""
    tokens: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        tokens[:] = [output]

    attention = model.blocks[-1].attn
    fused, attention.fused_attn = attention.fused_attn, False  # It has no second derivative.
    handle = model.blocks[-1].norm1.register_forward_hook(keep)
    try:
        yield tokens
    finally:
        handle.remove()
        attention.fused_attn = fused


def _loss(model: Any, patch_head: nn.Linear, batch: Cohort, tokens: list[Tensor]) -> Tensor:
    features_BND = model.forward_features(batch.image_BCHW)
    logits_BK = model.forward_head(features_BND)
    share_BSN = functional.avg_pool2d(batch.structure_BSHW, STRUCTURE_CELLS).flatten(2)
    diagnosis = functional.cross_entropy(logits_BK, batch.label_B, label_smoothing=0.05)
    patches = functional.binary_cross_entropy_with_logits(
        patch_head(features_BND[:, 1:]).mT, share_BSN
    )
    cam_BN = _cam(logits_BK, batch.label_B, tokens[0])
    evidence = _outside(cam_BN, share_BSN)
    return diagnosis + _PATCH_WEIGHT * patches + _EVIDENCE_WEIGHT * evidence


def _cam(logits_BK: Tensor, label_B: Tensor, tokens_BND: Tensor) -> Tensor:
    """(B, N - 1) GradCAM of each patient's own group before its ReLU, through which to train."""
    logits_B = logits_BK.gather(1, label_B[:, None])
    (slope_BND,) = torch.autograd.grad(logits_B.sum(), tokens_BND, create_graph=True)
    weight_B1D = slope_BND[:, 1:].mean(dim=1, keepdim=True)
    return (tokens_BND[:, 1:] * weight_B1D).sum(dim=-1)


def _outside(cam_BN: Tensor, share_BSN: Tensor) -> Tensor:
    """Share of a CAM that is not evidence for the group within the heart at ED or ES, 0 to 1."""
    heart_BN = torch.maximum(*(frame.sum(dim=1) for frame in share_BSN.chunk(2, dim=1)))
    within_B = (cam_BN.relu() * heart_BN).sum(dim=1)
    return 1 - (within_B / (cam_BN.abs().sum(dim=1) + _TINY)).mean()


def _augment(cohort: Cohort, chosen: Tensor) -> Cohort:
    """Turn, scale and shift patients with their structures; change brightness, add noise."""
    motion_B23 = _draw_motion(len(chosen))
    image_BCHW = _move(cohort.image_BCHW[chosen], motion_B23)
    gain_B111 = torch.empty(len(chosen), 1, 1, 1).uniform_(0.75, 1.25)
    return Cohort(
        image_BCHW * gain_B111 + 0.03 * torch.randn_like(image_BCHW),
        cohort.label_B[chosen],
        _move(cohort.structure_BSHW[chosen], motion_B23),
    )


def _draw_motion(patients: int) -> Tensor:
    """(B, 2, 3) of `affine_grid`: up to 20 degrees, 15 %, and 12 % of half the image."""
    angle = torch.empty(patients).uniform_(-0.35, 0.35)
    scale = torch.empty(patients).uniform_(-0.15, 0.15).exp()
    right, down = torch.empty(2, patients).uniform_(-0.12, 0.12)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    return torch.stack([cos, -sin, right, sin, cos, down], dim=1).view(-1, 2, 3)


def _move(image_BCHW: Tensor, motion_B23: Tensor) -> Tensor:
    grid = functional.affine_grid(motion_B23, list(image_BCHW.shape), align_corners=False)
    return functional.grid_sample(image_BCHW, grid, align_corners=False)
