"""`python -m artifactgen.demo`: a data set and a trained model, made on the spot in a minute.

Writes cine cardiac phantoms and fits a small vision transformer to tell ACDC's five groups apart,
saved as a checkpoint of Lightning's layout. It is trained from scratch on 60 patients, so it gets
three lessons in one: name the group; say for every patch how much of each structure is in it; and
find the evidence for the group, its own GradCAM, within the heart ("Tell Me Where to Look", Li et
al., CVPR 2018, arXiv:1802.10171). It sees the phantoms' labels in training, and images alone after.

Array names: B batch, C channels, H W pixels, h w the grid of patches, N tokens, D width.
"""

from __future__ import annotations

import argparse
import os
import pickle
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional as F

from artifactgen.data.cmr_acdc import Patient, PatientIndex
from artifactgen.data.image import centre_crop_or_pad, resize
from artifactgen.data.nifti import read_nifti
from artifactgen.data.phantom import Phantom
from artifactgen.data.phantom_image import LV_CAVITY, MYOCARDIUM, RV_CAVITY
from artifactgen.data.source import Catalog
from artifactgen.errors import ArtifactGenError, CheckpointError, RecordError
from artifactgen.types import Image, Sample

STRUCTURES = (RV_CAVITY, MYOCARDIUM, LV_CAVITY)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the demo's model is made; everything that its weights depend on but the data."""

    backbone: str = "vit_tiny_patch16_224"
    options: Mapping[str, Any] = field(
        default_factory=lambda: MappingProxyType(
            {"embed_dim": 64, "depth": 4, "num_heads": 4, "mlp_ratio": 2.0}
        )
    )
    """What the backbone is changed to; as timm's `create_model` takes it."""
    image_size: tuple[int, int] = (128, 128)
    crop_size: int = 112
    steps: int = 400
    batch_size: int = 30
    learning_rate: float = 3e-3
    seed: int = 2022


@dataclass(frozen=True, slots=True)
class Cohort:
    """Patients in memory."""

    image_BCHW: Tensor
    label_B: Tensor
    structure_BSHW: Tensor
    """Share of each pixel that is RV cavity, myocardium, LV cavity, at ED and then at ES."""

    def __len__(self) -> int:
        return len(self.label_B)


def load_cohort(source: Phantom, catalog: Catalog, splits: Sequence[str], *, grid: tuple[int, int]) -> Cohort:
    """Read whole splits: images as the program reads them, and the true labels beside them.

    Raises:
        RecordError: a patient cannot be read.
    """
    samples, structures = [], []
    for split in splits:
        index = catalog.splits[split]
        assert isinstance(index, PatientIndex)
        for patient, sample in zip(
            index.patients, source.read(catalog, split, 0, len(index)), strict=True
        ):
            if not isinstance(sample, Sample):
                raise RecordError(f"{sample.record_id}: {sample.reason}")
            samples.append(sample)
            structures.append(_read_structures(source, patient, grid))
    return Cohort(
        torch.from_numpy(np.stack([sample.image_CHW for sample in samples])),
        torch.tensor([sample.label for sample in samples]),
        torch.from_numpy(np.stack(structures)),
    )
