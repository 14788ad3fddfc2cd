"""What a finished run says of the model and of the set-up: accuracy, and what cannot be right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from artifactgen.confusion import Confusion
from artifactgen.labels import Labels
from artifactgen.store.layout import Layout
from artifactgen.store.predictions import read_predictions

_LEAST_RECORDS = 16
"""Maps that are empty for fewer records may be so by chance."""
_MAX_NAMED = 4


@dataclass(frozen=True, slots=True)
class Verdict:
    """Accuracy by split, and warnings."""

    names: tuple[str, ...]
    """Of the classes that labels and predictions are indices of."""
    confusions: Mapping[str, Confusion]
    """Split to its counts; those without labels or predictions are left out."""
    of_accuracy: tuple[str, ...]
    """What that says of the set-up."""
    of_maps: tuple[str, ...]
    """Maps that are empty for every record."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What all records say; the doubts of the first look stand beside them."""
        return (*self.of_accuracy, *self.of_maps)

    def lines(self) -> list[str]:
        """`test: 343 of 358 right (95.8 %); worst: three 71 %`."""
        return [f"{split}: {found.line(self.names)}" for split, found in self.confusions.items()]

    def report(self) -> dict[str, Any]:
        """Right and all records by split and class, in plain types."""
        return {
            split: {
                "summary": found.line(self.names),
                "right": found.right,
                "records": found.records,
                "accuracy": found.accuracy,
                "by_class": {
                    self.names[label]: {"right": right, "records": records}
                    for label, (right, records) in found.by_class.items()
                },
            }
            for split, found in self.confusions.items()
        }


def judge(
    labels: Labels,
    confusions: Mapping[str, Confusion],
    results: Mapping[str, Mapping[str, Any]],
) -> Verdict:
    """Judge the merged splits of an output directory.

    Args:
        labels: of the job.
        confusions: of each split that has labels and predictions.
        results: of each merged split.
    """
    of_accuracy = tuple(
        f"{split}: {warning}"
        for split, found in confusions.items()
        if (warning := found.warning(labels))
    )
    return Verdict(labels.names, confusions, of_accuracy, tuple(_empty_maps(results)))


def read_confusions(layout: Layout, labels: Labels, splits: Iterable[str]) -> dict[str, Confusion]:
    """Labels against predictions of every merged split that has both, where they compare."""
    if not labels.comparable:
        return {}
    found = {
        split: Confusion.total(
            Confusion.of(*arrays) for arrays in read_predictions(layout.scope(split).manifest)
        )
        for split in splits
    }
    return {split: confusion for split, confusion in found.items() if confusion.records}


def _empty_maps(results: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A warning for each kind with maps that are empty for all records."""
    records = sum(result["records"] for result in results.values())
    empty = Counter[str]()
    for result in results.values():
        empty.update(result["empty_maps"])
    always: dict[str, list[str]] = {}
    for name, count in empty.items():
        if count == records >= _LEAST_RECORDS:
            kind, _, what = name.partition(": ")
            always.setdefault(kind, []).append(what)
    return [
        f"{kind}: the maps of {_listed(names)} are empty for all {records:,} records: at this "
        f"layer no region speaks for {'it' if len(names) == 1 else 'them'}."
        for kind, names in always.items()
    ]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMED} more" if names[_MAX_NAMED:] else ""
    return ", ".join(names[:_MAX_NAMED]) + more
