from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from artifactgen.confusion import Confusion
from artifactgen.labels import Labels, match_labels

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def named(names: Sequence[str], *, are_named: bool = True) -> Labels:
    return match_labels(names, names, are_named=are_named, outputs_are_named=False)


def guesses(records: int, classes: int, *, share_right: float, seed: int = 0) -> Confusion:
    """A model that is right as often as that, and else guesses evenly."""
    rng = np.random.default_rng(seed)
    labels = np.arange(records) % classes
    knows = rng.random(records) < share_right
    predictions = np.where(knows, labels, rng.integers(0, classes, records))
    return Confusion.of(labels, predictions)


def reordered(records: int, classes: int, *, shift: int) -> Confusion:
    labels = np.arange(records) % classes
    predictions = (labels + shift) % classes
    predictions[::20] = 0
    return Confusion.of(labels, predictions)


def test_counts_equal_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    labels, predictions = rng.integers(0, 7, 500), rng.integers(0, 7, 500)
    found = Confusion.of(labels, predictions)
    expected = confusion_matrix(labels, predictions)
    assert all(found.pairs[i, j] == expected[i, j] for i, j in np.argwhere(expected).tolist())
    assert found.right == np.trace(expected)
    assert list(found.by_class) == list(range(7))
    assert found.by_class[3] == (expected[3, 3], expected[3].sum())
    expected = balanced_accuracy_score(labels, predictions)
    assert found.balanced_accuracy == pytest.approx(expected)
    adjusted = balanced_accuracy_score(labels, predictions, adjusted=True)
    assert found.skill[0] == pytest.approx(adjusted)


def test_unknown_labels_are_left_out() -> None:
    found = Confusion.of(np.array([-1, 0, 1, -1]), np.array([0, 0, 0, 1]))
    assert (found.records, found.right) == (2, 1)


def test_parts_add_up_to_the_whole() -> None:
    rng = np.random.default_rng(2)
    labels, predictions = rng.integers(0, 5, 99), rng.integers(0, 5, 99)
    parts = (Confusion.of(labels[i : i + 10], predictions[i : i + 10]) for i in range(0, 99, 10))
    assert Confusion.total(parts).pairs == Confusion.of(labels, predictions).pairs


def test_nothing_is_said_of_no_records() -> None:
    none = Confusion.of(np.empty(0, np.int64), np.empty(0, np.int64))
    assert math.isnan(none.accuracy)
    assert none.warning(named(NAMES)) == ""


def test_the_line_names_the_worst_class() -> None:
    labels = np.repeat(np.arange(10), 10)
    predictions = labels.copy()
    predictions[30:33] = 8
    found = Confusion.of(labels, predictions)
    assert found.line(NAMES) == "97 of 100 right (97.0 %); worst: three 70 %"
    assert found.line([str(k) for k in range(10)]).endswith("worst: class 3 70 %")
    assert Confusion.of(labels, labels).line(NAMES) == "100 of 100 right (100.0 %)"


@pytest.mark.parametrize(
    ("records", "classes", "found_out"),
    [(32, 10, 90), (32, 2, 70), (358, 10, 100), (2000, 100, 100), (32, 1000, 90)],
)
def test_guessers_are_found_out(records: int, classes: int, found_out: int) -> None:
    found = [guesses(records, classes, share_right=0.0, seed=seed) for seed in range(100)]
    assert sum(guesser.is_near_chance for guesser in found) >= found_out
    assert not any(guesser.explaining_order() for guesser in found)
    assert not any(guesser.is_plainly_good for guesser in found)


@pytest.mark.parametrize(
    ("records", "classes", "share_right"),
    [
        *((32, 10, 0.6), (32, 10, 0.95), (32, 3, 0.7), (32, 2, 0.6), (358, 10, 0.4)),
        *((32, 1000, 0.5), (2000, 100, 0.3)),
    ],
)
def test_a_model_that_knows_something_is_not(
    records: int, classes: int, share_right: float
) -> None:
    found = [guesses(records, classes, share_right=share_right, seed=seed) for seed in range(100)]
    assert sum(model.warning(named(NAMES * 100)) != "" for model in found) <= 3


@pytest.mark.parametrize(
    ("records", "prevalence", "sensitivity", "specificity"),
    [(32, 0.05, 0.9, 0.98), (32, 0.1, 0.8, 0.95), (32, 0.3, 0.8, 0.85), (5000, 0.002, 0.9, 0.95)],
)
def test_a_rare_class_is_no_reason_to_doubt_a_model(
    records: int, prevalence: float, sensitivity: float, specificity: float
) -> None:
    """Its accuracy is that of saying "healthy" of everyone, and it is a good model all the same."""
    rng = np.random.default_rng(0)
    doubted = 0
    for _ in range(100):
        labels = (rng.random(records) < prevalence).astype(np.int64)
        right = rng.random(records) < np.where(labels == 1, sensitivity, specificity)
        doubted += Confusion.of(labels, np.where(right, labels, 1 - labels)).is_near_chance
    assert doubted <= 3


def test_a_model_that_says_the_same_of_every_record_is_a_guesser() -> None:
    labels = np.array([0] * 90 + [1] * 10)
    found = Confusion.of(labels, np.zeros(100, np.int64))
    assert found.accuracy == 0.9
    assert found.warning(named(NAMES)).startswith(
        "90.0 % of 100 records are right, 50.0 % averaged over 2 classes, near the 50.0 % of "
    )


@pytest.mark.parametrize(
    ("share_right", "at_least", "at_most"), [(0.98, 80, 100), (0.6, 0, 3), (0.3, 0, 0)]
)
def test_plainly_good_is_more_than_passable(
    share_right: float, at_least: int, at_most: int
) -> None:
    found = [guesses(32, 10, share_right=share_right, seed=seed) for seed in range(100)]
    assert at_least <= sum(model.is_plainly_good for model in found) <= at_most


def test_one_class_alone_tells_nothing_about_chance() -> None:
    found = Confusion.of(np.zeros(50, np.int64), np.zeros(50, np.int64))
    assert found.warning(named(NAMES)) == ""


def test_few_records_tell_nothing_about_chance() -> None:
    assert guesses(4, 2, share_right=0.0).warning(named(NAMES)) == ""


@pytest.mark.parametrize(("records", "classes"), [(6, 2), (9, 3), (16, 5), (16, 2)])
def test_no_order_is_read_into_guesses(records: int, classes: int) -> None:
    found = [guesses(records, classes, share_right=0.0, seed=seed) for seed in range(200)]
    assert sum(bool(guesser.explaining_order()) for guesser in found) <= 1


def test_another_order_of_the_classes_is_told() -> None:
    found = reordered(200, 10, shift=1)
    assert found.explaining_order() == {k: (k + 1) % 10 for k in range(10)}
    assert "the model gives zero as one, one as two" in found.warning(named(NAMES))
    turned = [*NAMES[-1:], *NAMES[:-1]]
    assert found.warning(named(NAMES)).endswith(
        f"Name its outputs, in its order: 'model.classes=[{','.join(turned)}]'."
    )


def test_labels_without_names_are_given_some() -> None:
    numbers = [str(index) for index in range(10)]
    found = reordered(200, 10, shift=3)
    assert found.warning(named(numbers, are_named=False)).endswith(
        "Name the labels as the model counts: 'data.classes=[3,4,5,6,7,8,9,0,1,2]'."
    )


def test_classes_that_are_taken_for_another_are_no_order() -> None:
    """As under a wrong normalisation: every nine a three, and some others amiss."""
    truth = np.arange(500) % 10
    predictions = np.where(truth == 9, 3, truth)
    assert not Confusion.of(truth, predictions).explaining_order()
    half = np.where(np.arange(500) // 10 % 2, truth, 6)
    assert not Confusion.of(truth, half).explaining_order()


def test_two_classes_that_changed_places_are_told() -> None:
    labels = np.arange(300) % 5
    predictions = np.where(labels == 1, 4, np.where(labels == 4, 1, labels))
    found = Confusion.of(labels, predictions)
    assert found.accuracy == 0.6
    order = found.explaining_order()
    assert {a: b for a, b in order.items() if a != b} == {1: 4, 4: 1}


def test_a_class_of_few_records_is_not_called_the_worst() -> None:
    labels = np.array([0] * 20 + [1] * 20 + [2])
    found = Confusion.of(labels, np.minimum(labels, 1))
    assert found.line(NAMES) == "40 of 41 right (97.6 %)"


def test_an_order_is_not_read_into_a_few_records_of_many_classes() -> None:
    """Of one record for each class, some assignment always explains everything."""
    found = Confusion.of(np.arange(32), np.roll(np.arange(32), 7))
    assert not found.explaining_order()


def test_two_classes_the_wrong_way_round() -> None:
    found = reordered(40, 2, shift=1)
    assert found.explaining_order() == {0: 1, 1: 0}
