"""A first look at what a run is about: do pixels, labels and predictions make sense together?

Before a run some records, evenly spaced over the data set, go through the model. A set-up that is
wrong without failing shows here: dark images, another normalisation, classes in another
order, another checkpoint.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from artifactgen.confusion import Confusion
from artifactgen.data.reading import read_record, stack
from artifactgen.engine import Engine
from artifactgen.introspect.taps import Taps
from artifactgen.job import Job
from artifactgen.pixels import PixelRange, contradictions, describe, doubts
from artifactgen.types import Failure, Sample

RECORDS_LOOKED_AT = 32
_BATCH = 8
_SECONDS = 5.0
_STRIDE = 4


@dataclass(frozen=True, slots=True)
class FirstLook:
    """What some records say of the set-up."""

    pixels: str
    """Their type and range, and how they are scaled and normalised."""
    accuracy: str
    """How many of them are predicted as they are labelled; empty where that cannot be told."""
    accuracy_warning: str
    """What that says of the set-up; empty where it says nothing."""
    doubts: tuple[str, ...]
    """What else looks wrong, and what would mend it."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """All that looks wrong."""
        return (*filter(None, [self.accuracy_warning]), *self.doubts)


def look(
    job: Job,
    engine: Engine,
    samples: Sequence[Sample],
    predictions: Sequence[int],
    *,
    failures: Sequence[Failure] = (),
    rows: Mapping[str, int],
    in_haste: bool = True,
) -> FirstLook:
    """Look at records, and at what the model says of them.

    Args:
        job: what is to be done.
        engine: its model, on the CPU.
        samples: records that were read already, at least one.
        predictions: what the model says of them; none without a classifier.
        failures: records that could not be read.
        rows: split to how many of its records the run is about.
        in_haste: look at fewer records where all would take more than some seconds.
    """
    seen, said = list(samples), list(predictions)
    deadline = time.monotonic() + (_SECONDS if in_haste else math.inf)
    more = _evenly(job, rows, max(0, RECORDS_LOOKED_AT - len(samples)))
    broken = {failure.record_id: failure for failure in failures}
    ids = {sample.record_id for sample in samples}
    batches = _batches(_readable((item for item in more if item.record_id not in ids), broken))
    while time.monotonic() < deadline and (batch := next(batches, None)):
        seen += batch
        said += _predict(engine, batch)
    # Of a request for single records, those that were read are others.
    found = _judge(job, seen, said if rows else [])
    return replace(found, doubts=(*_unreadable(broken, len(seen)), *found.doubts))


def _readable(items: Iterable[Sample | Failure], broken: dict[str, Failure]) -> Iterator[Sample]:
    """The samples; what could not be read is added to `broken`."""
    for item in items:
        if isinstance(item, Sample):
            yield item
        else:
            broken[item.record_id] = item


def _unreadable(broken: Mapping[str, Failure], read: int) -> Iterator[str]:
    if broken:
        first = next(iter(broken.values()))
        yield (
            f"{len(broken)} of {len(broken) + read} records looked at cannot be read. The first, "
            f"{first.record_id}: {first.reason}"
        )


def _judge(job: Job, samples: Sequence[Sample], predictions: Sequence[int]) -> FirstLook:
    labels = [job.labels.of(sample.label) for sample in samples]
    confusion = Confusion({})
    if job.labels.comparable and predictions:
        confusion = Confusion.of(np.array(labels), np.array(predictions))
    pixels = PixelRange.of(sample.image_CHW for sample in samples)
    # A model that is plainly right gets the pixels that it expects, whatever they look like.
    odd = [] if confusion.is_plainly_good else doubts(pixels, job.normalization)
    stated = contradictions(pixels, job.normalization)
    return FirstLook(
        pixels=describe(pixels, job.normalization) + _resizing(samples),
        accuracy=confusion.line(job.labels.names) if confusion.records else "",
        accuracy_warning=confusion.warning(job.labels),
        doubts=tuple(filter(None, [job.labels.doubt, *stated, *odd])),
    )


def _resizing(samples: Sequence[Sample]) -> str:
    """What images were before they got the model's size; empty where they had it."""
    sizes = Counter(sample.stored_size for sample in samples)
    stored = [s for s, _ in sizes.most_common() if s not in (None, samples[0].image_CHW.shape[1:])]
    if not stored:
        return ""
    height, width = stored[0] or (0, 0)
    others = " and other sizes" if stored[1:] else ""
    to_height, to_width = samples[0].image_CHW.shape[1:]
    return f"; stored with {height} × {width}{others}, brought to {to_height} × {to_width}"


def _predict(engine: Engine, samples: Sequence[Sample]) -> list[int]:
    """The class that the model gives each record; none without a classifier."""
    if not engine.subject.has_head:
        return []
    logits_BK = engine.forward(stack(samples), Taps()).logits_BK
    assert logits_BK is not None
    classes: list[int] = logits_BK.argmax(1).tolist()
    return classes


def _evenly(job: Job, rows: Mapping[str, int], records: int) -> Iterator[Sample | Failure]:
    """Records that lie evenly spaced over all splits.

    In an order in which the first few of them are spread as well.
    """
    total = sum(rows.values())
    records = min(records, total)
    places = [(2 * i + 1) * total // (2 * records) for i in range(records)]
    for place in (place for first in range(_STRIDE) for place in places[first::_STRIDE]):
        for split, length in rows.items():
            if place < length:
                yield read_record(job.source, job.catalog, split, place)
                break
            place -= length


def _batches(samples: Iterator[Sample]) -> Iterator[list[Sample]]:
    batch: list[Sample] = []
    for sample in samples:
        batch.append(sample)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
