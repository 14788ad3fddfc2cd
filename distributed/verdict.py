"""What a finished run says of the model and of the set-up: accuracy, and what cannot be right."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from artifactgen.confusion import Confusion
from artifactgen.preflight import Preflight
from artifactgen.store.predictions import read_predictions
from distributed.run import Run

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
    warnings: tuple[str, ...]
    """What all records say; the doubts of the first look stand beside them."""

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


def judge(run: Run, ready: Preflight, results: Mapping[str, Mapping[str, Any]]) -> Verdict:
    """Judge the merged splits of an output directory.

    Args:
        run: the command.
        ready: what was found out before.
        results: of each merged split.
    """
    labels = ready.job.labels
    confusions = read_confusions(run, results) if labels.comparable else {}
    warnings = [
        f"{split}: {warning}"
        for split, found in confusions.items()
        if (warning := found.warning(labels.names))
    ]
    return Verdict(labels.names, confusions, (*warnings, *_empty_maps(results)))


def read_confusions(run: Run, results: Mapping[str, Any]) -> dict[str, Confusion]:
    """Labels against predictions of every split that has both."""
    manifests = {split: run.layout.scope(split).manifest for split in results}
    found = {
        split: Confusion.total(Confusion.of(*arrays) for arrays in read_predictions(manifest))
        for split, manifest in manifests.items()
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
