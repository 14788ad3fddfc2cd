"""Fits the demo's model: a small vision transformer, from scratch, on 60 patients, in a minute.

So few patients teach a transformer little by their diagnosis alone, and let it learn their
surroundings by heart. So it learns two things at once: which group the patient belongs to, and how
much of each structure is in each patch, from the phantoms' true labels. And half of the hearts it
sees have another patient's surroundings. Where it looks is left to itself.

Array names: B batch, C channels, H W pixels, h w patches, N tokens (class token first), D width,
S = 6 structures: RV cavity, myocardium, LV cavity at ED, then at ES.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from artifactgen.models.timm import Timm

STRUCTURE_CELLS = 4
"""Structures are kept on a grid this much finer than the patches, to be moved with the image."""
_STRUCTURES = 6
_PATCH_WEIGHT = 5.0
_DROPOUT = 0.1
_TRANSPLANTED = 0.5
_SURROUNDINGS_CELLS = 5


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


def fit(spec: Timm, cohort: Cohort, schedule: Schedule) -> Any:
    """Train a `VisionTransformer` of timm from scratch; the same seed gives the same weights."""
    with _repeatable(schedule.seed):
        options = {**spec.options, "proj_drop_rate": _DROPOUT}
        model: Any = replace(spec, options=options).build().module.requires_grad_(True).train()
        _initialize(model)
        _train(model, nn.Linear(model.embed_dim, _STRUCTURES), cohort, schedule)
    return model.requires_grad_(False).eval()


@contextmanager
def _repeatable(seed: int) -> Iterator[None]:
    """Seeded and on one core: sums depend on their order, and so on the number of threads."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


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
    for _ in range(schedule.steps):
        chosen = torch.randperm(len(cohort))[: schedule.batch_size]
        loss = _loss(model, patch_head, _transplant(_augment(cohort, chosen)))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        pace.step()


def _loss(model: Any, patch_head: nn.Linear, batch: Cohort) -> Tensor:
    features_BND = model.forward_features(batch.image_BCHW)
    logits_BK = model.forward_head(features_BND)
    share_BSN = functional.avg_pool2d(batch.structure_BSHW, STRUCTURE_CELLS).flatten(2)
    diagnosis = functional.cross_entropy(logits_BK, batch.label_B, label_smoothing=0.05)
    patches = functional.binary_cross_entropy_with_logits(
        patch_head(features_BND[:, 1:]).mT, share_BSN
    )
    return diagnosis + _PATCH_WEIGHT * patches


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


def _transplant(batch: Cohort) -> Cohort:
    """Put half of the hearts, with a rim, into another patient's picture, mirrored and moved."""
    down, right = torch.randint(-64, 64, (2,)).tolist()
    other_BCHW = batch.image_BCHW.roll(1, 0).flip(-1).roll((down, right), (2, 3))
    heart_B1HW = batch.structure_BSHW.amax(1, keepdim=True) > 0.1
    rim_B1HW = functional.max_pool2d(
        heart_B1HW.float(), _SURROUNDINGS_CELLS, stride=1, padding=_SURROUNDINGS_CELLS // 2
    )
    own_B1HW = functional.interpolate(rim_B1HW, batch.image_BCHW.shape[2:], mode="bilinear")
    stays_B111 = torch.rand(len(batch), 1, 1, 1) > _TRANSPLANTED
    share_B1HW = torch.where(stays_B111, 1.0, own_B1HW)
    return replace(batch, image_BCHW=torch.lerp(other_BCHW, batch.image_BCHW, share_B1HW))


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
