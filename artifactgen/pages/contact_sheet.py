"""What stands on the contact sheet of a split.

Everything is read from what is on disk already, the images from the data set and the rest from the
pictures that the workers wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from artifactgen.artifacts.base import Excerpt
from artifactgen.data.reading import read_record
from artifactgen.errors import RecordError
from artifactgen.job import Job
from artifactgen.pages.base import MergedRun
from artifactgen.rendering.figure.geometry import Rect
from artifactgen.rendering.image import resize_picture
from artifactgen.rendering.placing import canvas_of
from artifactgen.rendering.sheet import Card, Panel, Sheet
from artifactgen.store.sample import Listed
from artifactgen.types import UNKNOWN_LABEL, Sample

NOT_DRAWN = "not drawn"
"""A class that the record has no picture of, or the place of a picture that is gone."""
_LONGEST_KEPT_PX = 1024
"""Side of a picture; no panel is as long."""


def make_sheet(run: MergedRun, split: str, records: Sequence[Listed], *, total: int) -> Sheet:
    """What the contact sheet shows; columns that would be empty are left out.

    Args:
        run: with the pictures.
        split: name of the split.
        records: those to show.
        total: records of the split.
    """
    job = run.job
    excerpts = [_excerpts(run, record) for record in records]
    columns = [
        column for column in zip(*excerpts, strict=True) if any(excerpt.path for excerpt in column)
    ]
    shown = [[column[i] for column in columns] for i in range(len(records))]
    with ThreadPoolExecutor(job.reader_threads) as pool:
        cards = tuple(pool.map(partial(_card, job, split), records, shown))
    shown_frame = [f"frame {job.catalog.frame_names[0]}"] if job.catalog.frame_names else []
    facts = [_extent(records, total), job.model.name, *shown_frame, *_accuracy(run, split)]
    return Sheet(
        title=f"Overview of {split}",
        subtitle="  ·  ".join(facts),
        columns=("Input", *(column[0].title for column in columns)),
        cards=cards,
        image_size=_usual_form(job, cards),
    )


def _usual_form(job: Job, cards: Sequence[Card]) -> tuple[int, int]:
    """(H, W) of the input that is neither among the widest nor among the highest."""
    sizes = [card.panels[0].shape[:2] for card in cards if not isinstance(card.panels[0], str)]
    assert job.source.image_size is not None
    ordered = sorted(sizes or [job.source.image_size], key=lambda size: size[0] / size[1])
    height, width = ordered[(len(ordered) - 1) // 2]
    return height, width


def _accuracy(run: MergedRun, split: str) -> list[str]:
    confusion = run.confusions.get(split)
    if confusion is None:
        return []
    doubt = ["near chance"] if confusion.is_near_chance else []
    return [confusion.line(run.job.labels.names), *doubt]


def _extent(records: Sequence[Listed], total: int) -> str:
    if len(records) == total:
        return f"all {total:,} records"
    classes = len({record.label for record in records})
    return f"{len(records)} of {total:,} records" + (
        f" of {classes} classes" if classes > 1 else ""
    )


def _excerpts(run: MergedRun, record: Listed) -> list[Excerpt]:
    label = record.label if _is_comparable(run.job, record) else None
    return [
        excerpt
        for name, excerpts in run.excerpts.items()
        for excerpt in excerpts(
            record.files.get(name, ()), label=label, prediction=record.prediction
        )
    ]


def _is_comparable(job: Job, record: Listed) -> bool:
    """Whether the label counts the same classes as the classifier."""
    return record.label != UNKNOWN_LABEL and job.labels.comparable


@dataclass(frozen=True, slots=True)
class _Input:
    """A record as it was drawn on."""

    panel: Panel
    size: tuple[int, int] | None = None
    """(H, W) of that; None where it cannot be told."""


def _card(job: Job, split: str, record: Listed, excerpts: Sequence[Excerpt]) -> Card:
    parts = []
    is_wrong = False
    if record.label != UNKNOWN_LABEL:
        parts.append(f"true {job.labels.names[record.label]}")
    if record.prediction is not None:
        parts.append(f"predicted {job.classes[record.prediction]}")
        is_wrong = _is_comparable(job, record) and record.label != record.prediction
    if len(parts) == 2 and _is_comparable(job, record):
        parts.insert(0, "✗ wrong" if is_wrong else "✓ right")
    shown = _input(job, split, record)
    panels = (shown.panel, *(_panel(job.output_dir, each, shown.size) for each in excerpts))
    return Card(record.record_id, " · ".join(parts), is_wrong, panels)


def _input(job: Job, split: str, record: Listed) -> _Input:
    item = read_record(job.source, job.catalog, split, record.position)
    if isinstance(item, Sample):
        with suppress(RecordError):
            canvas = canvas_of(
                item,
                job.catalog.frame_names,
                max_value=job.normalization.max_value,
                longest_px=job.canvas_px,
            )
            return _Input(_small(canvas.images[0]), canvas.size)
    return _Input("not readable", None if job.canvas_px else job.source.image_size)


def _panel(root: Path, excerpt: Excerpt, size: tuple[int, int] | None) -> Panel:
    picture = None if excerpt.path is None else _read_picture(root / excerpt.path)
    region = excerpt.region
    if picture is None:
        return NOT_DRAWN
    if region is None:
        return _small(picture)
    if not isinstance(region, Rect):
        if size is None:
            return NOT_DRAWN
        region = region(size)
    return _small(picture[region.pixels])


def _small(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures of all records wait in memory, and no panel is large."""
    height, width = picture.shape[:2]
    if (scale := _LONGEST_KEPT_PX / max(height, width)) >= 1:
        return picture
    return resize_picture(picture, (max(1, round(scale * height)), max(1, round(scale * width))))


def _read_picture(path: Path) -> NDArray[np.uint8] | None:
    """A PNG as RGB, the first frame of several; None where it is gone or damaged."""
    try:
        encoded = np.frombuffer(path.read_bytes(), np.uint8)
    except FileNotFoundError:
        return None
    bgr = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if len(encoded) else None
    return None if bgr is None else np.ascontiguousarray(bgr[..., ::-1])
