"""How often a classifier is right, and whether its mistakes say that the set-up is wrong.

Labels and predictions are counted in pairs, as a sparse confusion matrix. A model that is no better
than guessing was most probably given other pixels than it was trained on; one that is wrong in the
same way everywhere counts its classes in another order than the labels do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from artifactgen.labels import Labels
from artifactgen.types import UNKNOWN_LABEL

_LEAST_RECORDS = 16
"""Fewer say nothing about chance."""
_LEAST_OF_A_CLASS = 5
"""Of fewer records, the worst class is a matter of luck."""
_NEAR_CHANCE, _AT_MOST = 0.15, 0.5
"""A model is near chance if its skill is hardly above 0, and surely not good."""
_PLAINLY_GOOD = 0.7
"""What the skill surely is above."""
_LEAST_GAIN = 0.15
_LEAST_RECORDS, _RECORDS_PER_CLASS = 16, 3
"""Another order of the classes needs so many to be believed: it explains any few records."""
_MAX_ASSIGNED = 2048
"""Among more classes no other order is looked for: the matrix is dense there."""
_MAX_NAMED = 6


@dataclass(frozen=True)
class Confusion:
    """Counts of (label, prediction), of the records whose label is known and comparable."""

    pairs: Mapping[tuple[int, int], int]

    @classmethod
    def of(cls, labels: NDArray[np.int64], predictions: NDArray[np.int64]) -> Self:
        """Count two arrays (n,); records with a negative label are left out."""
        known = labels >= 0
        labels, predictions = labels[known], predictions[known]
        width = int(predictions.max(initial=0)) + 1
        codes, counts = np.unique(labels * width + predictions, return_counts=True)
        pairs = zip((codes // width).tolist(), (codes % width).tolist(), strict=True)
        return cls(dict(zip(pairs, counts.tolist(), strict=True)))

    @classmethod
    def total(cls, parts: Iterable[Confusion]) -> Self:
        """All of several taken together."""
        pairs: dict[tuple[int, int], int] = {}
        for part in parts:
            for pair, count in part.pairs.items():
                pairs[pair] = pairs.get(pair, 0) + count
        return cls(pairs)

    @cached_property
    def records(self) -> int:
        """How many records there are."""
        return sum(self.pairs.values())

    @cached_property
    def right(self) -> int:
        """How many are predicted as they are labelled."""
        return sum(count for (label, predicted), count in self.pairs.items() if label == predicted)

    @property
    def accuracy(self) -> float:
        """Share of records that are right; NaN of none."""
        return self.right / self.records if self.records else math.nan

    @cached_property
    def by_class(self) -> dict[int, tuple[int, int]]:
        """Label to (right, records), in the order of the labels."""
        counts: dict[int, tuple[int, int]] = {}
        for (label, predicted), count in sorted(self.pairs.items()):
            right, records = counts.get(label, (0, 0))
            counts[label] = right + count * (label == predicted), records + count
        return counts

    @property
    def balanced_accuracy(self) -> float:
        """Share of right records of a class, averaged over the classes that occur."""
        shares = [right / records for right, records in self.by_class.values()]
        return sum(shares) / len(shares) if shares else math.nan

    @cached_property
    def skill(self) -> tuple[float, float]:
        """Balanced accuracy from 0, of guessing, to 1, and its standard error.

        Whatever guesses, by frequencies or always the same, is right in 1/K of K classes on the
        average, and so has no skill, however unequal the classes are (Youden's J for two classes,
        Cancer 3, 1950). The error takes half a record more for right and for wrong, so that a few
        records that agree are not certain.
        """
        classes = self.by_class
        if len(classes) < 2:
            return math.nan, math.inf
        chance = 1 / len(classes)
        shares = [((right + 0.5) / (n + 1), n) for right, n in classes.values()]
        variance = sum(share * (1 - share) / n for share, n in shares) / len(classes) ** 2
        skill = (self.balanced_accuracy - chance) / (1 - chance)
        return skill, math.sqrt(variance) / (1 - chance)

    @property
    def surely(self) -> tuple[float, float]:
        """Between what the skill lies, in nineteen cases of twenty."""
        skill, error = self.skill
        return skill - 2 * error, skill + 2 * error

    @property
    def is_near_chance(self) -> bool:
        """Whether the predictions may be guesses and are no good; False where too few tell."""
        return self.skill[0] < _NEAR_CHANCE and self.surely[1] < _AT_MOST

    @property
    def is_plainly_good(self) -> bool:
        """Whether so many are right that the model gets what it was trained on."""
        return self.surely[0] >= _PLAINLY_GOOD

    def explaining_order(self) -> dict[int, int]:
        """Label to prediction, of the assignment of classes that most records agree with.

        Empty where the classes are in order already, or no other order explains the predictions.
        """
        classes = len(self.by_class)
        if self.records < max(_LEAST_RECORDS, _RECORDS_PER_CLASS * classes) or classes < 2:
            return {}
        order = _assign(self.pairs)
        explained = Confusion.total(
            Confusion({(order.get(label, UNKNOWN_LABEL), predicted): count})
            for (label, predicted), count in self.pairs.items()
        )
        is_better = explained.accuracy - self.accuracy >= _LEAST_GAIN
        # Classes that change places among themselves: else one is but taken for another.
        is_order = set(order.values()) == set(order)
        return order if is_better and is_order and explained.is_plainly_good else {}

    def line(self, names: Sequence[str]) -> str:
        """`343 of 358 right (95.8 %); worst: three 71 %`."""
        text = f"{self.right:,} of {self.records:,} right ({100 * self.accuracy:.1f} %)"
        shares = {
            label: right / records
            for label, (right, records) in self.by_class.items()
            if records >= _LEAST_OF_A_CLASS
        }
        worst = min(shares, key=lambda label: shares[label], default=None)
        if worst is None or shares[worst] == 1 or len(self.by_class) < 2:
            return text
        name = f"class {names[worst]}" if names[worst].isdecimal() else names[worst]
        return f"{text}; worst: {name} {100 * shares[worst]:.0f} %"

    def warning(self, labels: Labels) -> str:
        """What the mistakes say of the set-up, in a sentence or two; nothing where they do not."""
        if order := self.explaining_order():
            moved = [(label, other) for label, other in order.items() if label != other]
            shown = ", ".join(
                f"{labels.names[a]} as {labels.names[b]}" for a, b in moved[:_MAX_NAMED]
            )
            more = f" and {len(moved) - _MAX_NAMED} more" if moved[_MAX_NAMED:] else ""
            return (
                f"{100 * self.accuracy:.1f} % of {self.records:,} records are right, and another "
                f"order of the classes would explain it: the model gives {shown}{more}.\n"
                f"{labels.advise(order)}"
            )
        if not self.is_near_chance:
            return ""
        classes = len(self.by_class)
        return (
            f"{100 * self.accuracy:.1f} % of {self.records:,} records are right, "
            f"{100 * self.balanced_accuracy:.1f} % averaged over {classes} classes, near the "
            f"{100 / classes:.1f} % of guessing.\n"
            "Are the pixels scaled and normalised as in training (data.max_value, data.mean, "
            "data.std, data.image_size), and is it the right checkpoint?"
        )


def _assign(pairs: Mapping[tuple[int, int], int]) -> dict[int, int]:
    """The one-to-one assignment of labels to predictions that most records agree with."""
    from scipy.optimize import linear_sum_assignment  # takes a moment to import

    labels = sorted({label for label, _ in pairs})
    outputs = sorted({*labels, *(predicted for _, predicted in pairs)})
    if len(outputs) > _MAX_ASSIGNED:
        return {}
    row, column = ({k: i for i, k in enumerate(keys)} for keys in (labels, outputs))
    counts = np.zeros((len(labels), len(outputs)))
    for (label, predicted), count in pairs.items():
        counts[row[label], column[predicted]] = count
    # Of assignments that agree equally, the one that leaves classes where they are.
    counts[[row[k] for k in labels], [column[k] for k in labels]] += 0.5 / len(labels)
    rows, columns = linear_sum_assignment(counts, maximize=True)
    return {labels[i]: outputs[j] for i, j in zip(rows, columns, strict=True)}
