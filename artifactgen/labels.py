"""How the labels of a data set stand to the outputs of a classifier.

Both count classes, each in an order of its own. Where names tell which output a label means, labels
are counted as the classifier does, everywhere in the results, so that a prediction and a label can
be compared. Where they do not, and there are not equally many, nothing is compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from artifactgen.types import UNKNOWN_LABEL

_MAX_LISTED = 32


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of the results: indices into `names`."""

    names: tuple[str, ...]
    """The classifier's, if labels can be compared with its outputs; else the data set's."""
    order: tuple[int, ...]
    """Of each label of the data set, the label of the results."""
    comparable: bool
    """Whether a label counts the same classes as a prediction."""
    doubt: str = ""
    """What is questionable about the comparison, or why there is none; for a person."""
    are_named: bool = True
    """Whether the data set has names, and not just numbers."""

    def of(self, label: int) -> int:
        """The label of the results for one of the data set; unknown ones stay so."""
        return UNKNOWN_LABEL if label == UNKNOWN_LABEL else self.order[label]

    def advise(self, order: Mapping[int, int]) -> str:
        """What to set where the classifier gives `order[label]` for a label of the results."""
        if sorted(order) != list(range(len(self.names))) or len(order) > _MAX_LISTED:
            return "Set model.classes to the names of its outputs, in its order."
        if not self.are_named:
            names = [self.names[order[label]] for label in range(len(order))]
            return f"Name the labels as the model counts: 'data.classes=[{','.join(names)}]'."
        outputs = {output: label for label, output in order.items()}
        names = [self.names[outputs[output]] for output in range(len(order))]
        return f"Name its outputs, in its order: 'model.classes=[{','.join(names)}]'."


def match_labels(
    names: Sequence[str], outputs: Sequence[str], *, are_named: bool, outputs_are_named: bool
) -> Labels:
    """Compare the classes of a data set with those of a classifier.

    Args:
        names: of the data set, by label; empty without labels.
        outputs: of the classifier, by index; empty without one.
        are_named: whether the data set has names, and not just numbers.
        outputs_are_named: whether the checkpoint or the settings have names.
    """
    as_they_are = tuple(range(len(names)))
    if not names or not outputs:
        return Labels(tuple(names), as_they_are, comparable=False)
    if are_named and (outputs_are_named or set(names) <= set(outputs)):
        return _by_name(names, outputs)
    if len(names) == len(outputs) or (not are_named and len(names) < len(outputs)):
        found = names if are_named and not outputs_are_named else outputs
        return Labels(tuple(found), as_they_are, comparable=True, are_named=are_named)
    return _incomparable(names, outputs)


def _by_name(names: Sequence[str], outputs: Sequence[str]) -> Labels:
    index = {name: i for i, name in enumerate(outputs)}
    absent = [name for name in names if name not in index]
    if not absent:
        return Labels(tuple(outputs), tuple(index[name] for name in names), comparable=True)
    if len(names) == len(outputs):
        return Labels(
            tuple(outputs),
            tuple(range(len(names))),
            comparable=True,
            doubt=f"The model calls its classes {_listed(outputs)}, the data set {_listed(names)}: "
            "they are taken to be the same ones in the same order. Set data.classes or "
            "model.classes if they are not.",
        )
    return _incomparable(names, outputs)


def _incomparable(names: Sequence[str], outputs: Sequence[str]) -> Labels:
    return Labels(
        tuple(names),
        tuple(range(len(names))),
        comparable=False,
        doubt=f"The labels are of {len(names)} classes and the model has {len(outputs)}, so labels "
        "and predictions cannot be compared. Set model.classes to the names of its outputs if they "
        "are among the data set's.",
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
