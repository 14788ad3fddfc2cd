from __future__ import annotations

import pytest

from artifactgen.labels import match_labels

ANIMALS = ("cat", "dog", "eel")
NUMBERS = ("0", "1", "2")


def test_labels_are_counted_as_the_classifier_does_where_both_have_names() -> None:
    found = match_labels(
        ANIMALS, ("eel", "cat", "fox", "dog"), are_named=True, outputs_are_named=True
    )
    assert found.names == ("eel", "cat", "fox", "dog")
    assert [found.names[found.of(label)] for label in range(3)] == list(ANIMALS)
    assert found.comparable
    assert found.doubt == ""


def test_an_unknown_label_stays_unknown() -> None:
    found = match_labels(ANIMALS, ANIMALS[::-1], are_named=True, outputs_are_named=True)
    assert (found.of(-1), found.of(0)) == (-1, 2)


@pytest.mark.parametrize(
    ("names", "outputs", "are_named", "outputs_are_named", "expected"),
    [
        (ANIMALS, NUMBERS, True, False, ANIMALS),
        (NUMBERS, ANIMALS, False, True, ANIMALS),
        (NUMBERS[:2], ANIMALS, False, True, ANIMALS),
        (NUMBERS[:2], NUMBERS, False, False, NUMBERS),
    ],
)
def test_without_names_the_position_decides(
    names: tuple[str, ...],
    outputs: tuple[str, ...],
    are_named: bool,
    outputs_are_named: bool,
    expected: tuple[str, ...],
) -> None:
    found = match_labels(names, outputs, are_named=are_named, outputs_are_named=outputs_are_named)
    assert found.names == expected
    assert found.comparable
    assert found.doubt == ""
    assert [found.of(label) for label in range(len(names))] == list(range(len(names)))


def test_as_many_of_other_names_are_taken_by_position_and_doubted() -> None:
    found = match_labels(ANIMALS, ("Cat", "Dog", "Eel"), are_named=True, outputs_are_named=True)
    assert found.comparable
    assert "Cat, Dog, Eel, the data set cat, dog, eel" in found.doubt


@pytest.mark.parametrize("outputs_are_named", [False, True])
def test_other_classes_are_not_compared_and_doubted(outputs_are_named: bool) -> None:
    found = match_labels(ANIMALS, ("0", "1"), are_named=True, outputs_are_named=outputs_are_named)
    assert not found.comparable
    assert found.names == ANIMALS
    assert found.doubt.startswith("The labels are of 3 classes and the model has 2")


@pytest.mark.parametrize(("names", "outputs"), [((), ANIMALS), (ANIMALS, ()), ((), ())])
def test_without_labels_or_a_classifier_nothing_is_said(
    names: tuple[str, ...], outputs: tuple[str, ...]
) -> None:
    found = match_labels(names, outputs, are_named=True, outputs_are_named=False)
    assert not found.comparable
    assert found.doubt == ""
    assert found.names == names
