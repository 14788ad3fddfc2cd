"""The whole job against the usual script: records per second, all pictures included.

    python -m benchmarks.speed.pipeline

The usual script takes one record at a time: a forward pass for the embedding, pytorch-grad-cam
once for each class, `show_cam_on_image` and Pillow for its pictures, `plt.subplots` and `savefig`
at 300 dpi for the attention figure. The program does the same for the same cine phantoms with the
same model, from `.nii.gz` files to PNGs of the same sizes: preflight, reading, merging, manifest,
reports and contact sheet included. torch has one thread in both; the program's own threads read and
draw beside it.
"""

from __future__ import annotations

import contextlib
import io
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.image import show_cam_on_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from artifactgen.demo.phantom import Phantom, write_phantoms
from artifactgen.types import Sample
from benchmarks.exactness import reference
from distributed.launch import run_command

BACKBONE = "vit_small_patch16_224"
CLASSES = 5
RECORDS, USUAL_RECORDS = 64, 3
"""Of the program, and of the usual script, whose time for each record is the same."""
RUNS = 3
FIGURE_INCHES = (6.0, 3.9)
"""1800 × 1170 pixels at 300 dpi, the size of the program's figure."""


@dataclass(frozen=True, slots=True)
class Task:
    """What both are given."""

    data: Path
    checkpoint: Path
    model: nn.Module
    samples: Sequence[Sample]


def make_task(folder: Path) -> Task:
    """Phantoms, and a model of random weights with its checkpoint."""
    data, checkpoint = folder / "data", folder / "model.pth"
    write_phantoms(data, training=10, testing=RECORDS)
    model = reference.random_model(BACKBONE, classes=CLASSES)
    torch.save(model.state_dict(), checkpoint)
    source = Phantom(root=str(data), training=10, testing=RECORDS, image_size=(224, 224))
    items = source.read(source.scan(), "test", 0, USUAL_RECORDS)
    return Task(data, checkpoint, model, [item for item in items if isinstance(item, Sample)])


@dataclass(frozen=True, slots=True)
class Seconds:
    """Of one record, of the clock and of all cores."""

    wall: float
    cpu: float


@contextlib.contextmanager
def timed(records: int, into: list[Seconds]) -> Iterator[None]:
    """Add the seconds that the block takes for each record."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    into.append(
        Seconds((time.perf_counter() - wall) / records, (time.process_time() - cpu) / records)
    )


def program(task: Task, output: Path) -> None:
    """The job, by this program."""
    options = [
        "experiment=embeddings/default",
        "model=timm",
        "data=phantom",
        f"ckpt_path={task.checkpoint}",
        f"output_dir={output}",
        f"data.root={task.data}",
        "data.training=10",
        f"data.testing={RECORDS}",
        "data.image_size=[224,224]",
        "data.crop_size=128",
        f"model.backbone={BACKBONE}",
        "splits=[test]",
        "precision=32-true",
        "cluster.threads_per_worker=1",
    ]
    told, hook = io.StringIO(), sys.excepthook
    with contextlib.redirect_stderr(told):
        code = run_command(options)
    sys.excepthook = hook
    assert code == 0, told.getvalue()
    pictures = len(list(output.glob("gradcam/*/class_*.png")))
    assert pictures == RECORDS * CLASSES, pictures


def usual_script(task: Task, output: Path) -> None:
    """A few records, by the usual script."""
    output.mkdir()
    for sample in task.samples:
        cine = next((task.data / "testing" / sample.record_id).glob("*_4d.nii.gz"))
        nib.load(cine).get_fdata()
        usual_record(task.model, sample.image_CHW, output / sample.record_id)


def usual_record(model: nn.Module, image_CHW: NDArray[Any], folder: Path) -> None:
    """Embedding, GradCAM of each class, and the attention figure of one record."""
    folder.mkdir()
    image_HW3 = image_CHW.transpose(1, 2, 0).astype(np.float32)
    image_HW3 /= max(float(image_HW3.max()), 1.0)
    x_BCHW = torch.from_numpy(image_HW3.transpose(2, 0, 1)[None])
    torch.save(torch.from_numpy(reference.timm_embedding(model, x_BCHW)), folder / "embedding.pt")
    usual_gradcams(model, x_BCHW, image_HW3, folder)
    attention = reference.attention_matrices(model, x_BCHW)[-1][0, :, 0, 1:].numpy()
    usual_figure(image_HW3, attention.reshape(-1, 14, 14), folder)


def usual_gradcams(
    model: nn.Module, x_BCHW: Tensor, image_HW3: NDArray[np.float32], folder: Path
) -> None:
    """As the examples of pytorch-grad-cam do it."""
    layer = model.get_submodule("blocks.11.norm1")
    transform = reference.reshape_transform(model, (14, 14))
    model.requires_grad_(True)
    with GradCAM(model, [layer], reshape_transform=transform) as cam:
        for index in range(CLASSES):
            map_HW = cam(x_BCHW, [ClassifierOutputTarget(index)])[0]
            shown = show_cam_on_image(image_HW3, map_HW, use_rgb=True)
            Image.fromarray(shown).save(folder / f"class_{index}.png")
    model.requires_grad_(False)
    model.zero_grad()


def usual_figure(
    image_HW3: NDArray[np.float32], attention_Ahw: NDArray[np.float32], folder: Path
) -> None:
    """Input, mean over heads, and each head."""
    drawn, axes = plt.subplots(2, 4, figsize=FIGURE_INCHES)
    panels = [image_HW3, attention_Ahw.mean(0), *attention_Ahw]
    titles = ["Input", "Mean", *(f"Head {n}" for n in range(1, len(attention_Ahw) + 1))]
    for axis, panel, title in zip(axes.flat, panels, titles, strict=True):
        image = axis.imshow(panel, cmap="inferno", interpolation="bilinear")
        axis.set_title(title)
        axis.axis("off")
    drawn.colorbar(image, ax=axes)
    drawn.savefig(folder / "attention.png", dpi=300)
    plt.close(drawn)


def main() -> None:
    """Print the table."""
    mpl.use("Agg")
    torch.set_num_threads(1)
    usual: list[Seconds] = []
    ours: list[Seconds] = []
    with tempfile.TemporaryDirectory() as folder:
        task = make_task(Path(folder))
        for run in range(RUNS + 1):
            with timed(len(task.samples), usual):
                usual_script(task, Path(folder) / f"usual{run}")
            with timed(RECORDS, ours):
                program(task, Path(folder) / f"ours{run}")
    print("| for each record | usual script | the program | ratio |")
    print("| --- | ---: | ---: | ---: |")
    for name in ("wall", "cpu"):
        # The first run of each warms up, and does not count.
        usual_s, ours_s = (
            statistics.median(getattr(run, name) for run in runs[1:]) for runs in (usual, ours)
        )
        print(f"| {name} | {usual_s:.2f} s | {ours_s:.3f} s | {usual_s / ours_s:.1f} × |")


if __name__ == "__main__":
    main()
