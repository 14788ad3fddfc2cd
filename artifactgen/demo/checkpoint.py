"""A data set and a model trained on it, made on the spot in a minute.

Writes cine cardiac phantoms in ACDC's layout, trains a small vision transformer on `training/` to
tell the five groups apart, tests it on `testing/`, and saves it in the layout of Lightning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import nn

from artifactgen.clock import Clock
from artifactgen.data.base import Catalog
from artifactgen.data.cmr_acdc import Patient, PatientIndex
from artifactgen.data.image import centre_crop_or_pad, resize
from artifactgen.data.nifti import read_nifti
from artifactgen.demo.imaging import LV_CAVITY, MYOCARDIUM, RV_CAVITY
from artifactgen.demo.phantom import Phantom
from artifactgen.demo.training import STRUCTURE_CELLS, Cohort, Schedule, count_correct, fit
from artifactgen.errors import RecordError
from artifactgen.models.checkpoint import read_checkpoint
from artifactgen.models.file import identify
from artifactgen.models.timm import Timm
from artifactgen.store.atomic import replacing
from artifactgen.types import Sample

IMAGE_SIZE = (128, 128)
CROP_SIZE = 112
PATCH_SIZE = 16
BACKBONE = "vit_tiny_patch16_224"
OPTIONS: Mapping[str, Any] = MappingProxyType(
    {"embed_dim": 64, "depth": 4, "num_heads": 4, "mlp_ratio": 2.0}
)
"""What makes the backbone small enough to learn in a minute; `configs/` says the same."""


def make_demo(source: Phantom, ckpt: Path, *, schedule: Schedule, console: Console) -> None:
    """Make what is missing: the data at the source's root, and the checkpoint of a model of it.

    Raises:
        DataError: what lies at the root is no data set, or none can be written there.
        CheckpointError: the file at `ckpt` is no checkpoint.
    """
    clock = Clock()
    with clock("data"):
        catalog = source.scan()
    settings = _settings(source, catalog, schedule)
    if ckpt.is_file() and read_checkpoint(identify(ckpt)).meta.get("hyper_parameters") == settings:
        console.print(f"{ckpt} is there already, made with the same data and settings")
        return
    with clock("read"):
        training = load_cohort(source, catalog, ["train", "val"])
        testing = load_cohort(source, catalog, ["test"])
    console.print(f"Training on {len(training)} patients, about a minute …")
    with clock("fit"):
        model = fit(_spec(source, catalog), training, schedule)
    _save(model, settings, schedule, ckpt)
    console.print(", ".join(f"{stage} {took_s:.1f} s" for stage, took_s in clock.seconds.items()))
    console.print(f"{count_correct(model, testing)}/{len(testing)} of the test patients are right")
    console.print(f"Checkpoint: {ckpt}")


def load_cohort(source: Phantom, catalog: Catalog, splits: Sequence[str]) -> Cohort:
    """Read whole splits: images as every run reads them, and the true labels beside them.

    Raises:
        RecordError: a patient cannot be read.
    """
    samples = [sample for split in splits for sample in _read_split(source, catalog, split)]
    patients = [patient for split in splits for patient in _patients(catalog, split)]
    return Cohort(
        torch.from_numpy(np.stack([sample.image_CHW for sample in samples])),
        torch.tensor([sample.label for sample in samples]),
        torch.from_numpy(np.stack([_read_structures(source, patient) for patient in patients])),
    )


def _patients(catalog: Catalog, split: str) -> tuple[Patient, ...]:
    index = catalog.splits[split]
    assert isinstance(index, PatientIndex)
    return index.patients


def _read_split(source: Phantom, catalog: Catalog, split: str) -> list[Sample]:
    samples = []
    for sample in source.read(catalog, split, 0, len(catalog.splits[split])):
        if not isinstance(sample, Sample):
            raise RecordError(f"{sample.record_id}: {sample.reason}")
        samples.append(sample)
    return samples


def _read_structures(source: Phantom, patient: Patient) -> NDArray[np.float32]:
    """(S, H, W) share of each structure at ED and ES, cut like the image, on a coarser grid."""
    assert source.image_size is not None
    assert source.crop_size is not None
    crop = (source.crop_size, source.crop_size)
    rows, columns = (STRUCTURE_CELLS * pixels // PATCH_SIZE for pixels in source.image_size)
    folder = Path(source.root, patient.cine).parent
    shares = []
    for frame in (patient.frames[0], patient.frames[-1]):
        name = f"{patient.record_id}_frame{frame + 1:02d}_gt.nii.gz"
        labels_ZYX = read_nifti(folder / name, ndim=3).stored
        middle_YX = labels_ZYX[len(labels_ZYX) // 2]
        for structure in (RV_CAVITY, MYOCARDIUM, LV_CAVITY):
            mask_1YX = (middle_YX == structure)[None].astype(np.float32)
            shares.append(resize(centre_crop_or_pad(mask_1YX, crop), (rows, columns)))
    return np.concatenate(shares)


def _spec(source: Phantom, catalog: Catalog) -> Timm:
    return Timm(
        backbone=BACKBONE,
        num_classes=len(catalog.classes),
        image_size=source.image_size,
        options=dict(OPTIONS),
    )


def _settings(source: Phantom, catalog: Catalog, schedule: Schedule) -> dict[str, Any]:
    """Everything that the weights depend on, in plain types: the checkpoint's hyper-parameters."""
    assert source.image_size is not None
    return {
        "backbone": BACKBONE,
        "options": dict(OPTIONS),
        "image_size": list(source.image_size),
        "crop_size": source.crop_size,
        "classes": list(catalog.classes),
        "schedule": asdict(schedule),
        "data": catalog.identity,
    }


def _save(model: nn.Module, settings: dict[str, Any], schedule: Schedule, ckpt: Path) -> None:
    """Write the checkpoint as Lightning writes that of a module which keeps its net in `model`."""
    content = {
        "state_dict": {f"model.{name}": value for name, value in model.state_dict().items()},
        "hyper_parameters": settings,
        "epoch": 0,
        "global_step": schedule.steps,
        "pytorch-lightning_version": "2.5.0",
    }
    with replacing(ckpt, temp_dir=ckpt.parent) as temp, temp.open("wb") as file:
        torch.save(content, file)  # by handle: by path, torch stores the temporary name
