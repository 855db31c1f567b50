"""The figures of a classifier agree with counting by hand and with torchmetrics."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_accuracy,
    multiclass_calibration_error,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from contract.errors import InvalidInput, ModelError
from worker.metrics.classification import Classification, calibration, measure, top_scores

NAMES = tuple(f"class {c}" for c in range(7))


def noisy(n: int, classes: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return logits that are right about half of the time."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (n,), generator=generator)
    logits = torch.randn(n, classes, generator=generator)
    logits[torch.arange(n), labels] += 1.5
    return logits, labels


def of(predicted: list[int], labels: list[int], classes: int) -> Classification:
    """Return the logits of a model that is certain of these predictions."""
    logits = 9.0 * torch.nn.functional.one_hot(torch.tensor(predicted), classes).float()
    return measure(logits, torch.tensor(labels), NAMES[:classes])


def test_figures_agree_with_counting_by_hand() -> None:
    # Given three cats, one of them predicted as a dog, and one dog that is found,
    result = of([0, 0, 1, 1], [0, 0, 0, 1], 2)
    # I expect
    assert result.confusion == ((2, 1), (0, 1)), "true classes down, predicted ones across"
    assert result.top1 == 0.75
    cat, dog = result.classes
    assert (cat.examples, cat.predictions, cat.precision, cat.recall, cat.f1) == (3, 2, 1.0, 2 / 3, 0.8)
    assert (dog.examples, dog.predictions, dog.precision, dog.recall, dog.f1) == (1, 2, 0.5, 1.0, 2 / 3)
    assert (result.precision, result.recall) == (0.75, pytest.approx(5 / 6))
    assert result.f1 == pytest.approx((0.8 + 2 / 3) / 2)


def test_figures_agree_with_torchmetrics() -> None:
    logits, labels = noisy(900, 7)
    result = measure(logits, labels, NAMES)
    average: dict[str, Any] = {"num_classes": 7, "average": "macro"}
    assert result.top1 == pytest.approx(float(multiclass_accuracy(logits, labels, 7, average="micro")))
    assert result.top_k == pytest.approx(float(multiclass_accuracy(logits, labels, 7, average="micro", top_k=5)))
    assert result.precision == pytest.approx(float(multiclass_precision(logits, labels, **average)))
    assert result.recall == pytest.approx(float(multiclass_recall(logits, labels, **average)))
    assert result.f1 == pytest.approx(float(multiclass_f1_score(logits, labels, **average)))
    # No score of noise is exactly 1 or lies on an edge: there the bins agree.
    error = multiclass_calibration_error(logits.softmax(dim=1), labels, 7, n_bins=15)
    assert result.calibration_error == pytest.approx(float(error), abs=1e-6)


@pytest.mark.parametrize("classes", [2, 4, 5, 7])
def test_top_5_is_capped_at_the_number_of_classes(classes: int) -> None:
    logits, labels = noisy(400, classes)
    result = measure(logits, labels, NAMES[:classes])
    ranks = [int((row > row[label]).sum()) for row, label in zip(logits, labels, strict=True)]
    assert result.k == min(5, classes)
    assert result.top_k == sum(rank < result.k for rank in ranks) / 400
    assert result.top1 == sum(rank == 0 for rank in ranks) / 400


def test_a_class_without_examples_has_no_recall_and_does_not_change_the_means() -> None:
    # Given a class that never occurs but is predicted, and one that neither occurs nor is predicted,
    result = of([0, 1, 2], [0, 1, 1], 4)
    # I expect None for each undefined share, in JSON too,
    _, _, predicted, absent = json.loads(result.to_json())["classes"]
    assert (predicted["examples"], predicted["recall"], predicted["precision"], predicted["f1"]) == (0, None, 0.0, 0.0)
    assert (absent["examples"], absent["recall"], absent["precision"], absent["f1"]) == (0, None, None, None)
    # and means over the two classes that have examples.
    assert (result.precision, result.recall, result.f1) == (1.0, 0.75, pytest.approx((1 + 2 / 3) / 2))


def test_a_class_that_is_never_predicted_has_no_precision_but_counts_as_0() -> None:
    result = of([0, 0], [0, 1], 2)
    assert (result.classes[1].precision, result.classes[1].recall, result.classes[1].f1) == (None, 0.0, 0.0)
    assert result.precision == 0.25


def test_classes_are_sorted_worst_first_and_without_f1_last() -> None:
    result = of([0, 0, 2, 1], [0, 1, 2, 1], 5)
    assert [one.name for one in result.worst_first()] == ["class 0", "class 1", "class 2", "class 3", "class 4"]
    result = of([2, 2, 2, 1], [2, 1, 2, 1], 3)
    assert [one.name for one in result.worst_first()] == ["class 1", "class 2", "class 0"]


def test_a_record_survives_json() -> None:
    result = measure(*noisy(200, 7), NAMES)
    assert Classification.model_validate_json(result.to_json()) == result


def test_a_model_as_confident_as_it_is_accurate_has_no_calibration_error() -> None:
    # Given ten examples with score 0.7, seven of which are right,
    scores = torch.full((10,), 0.7, dtype=torch.float64)
    bins = calibration(scores, torch.arange(10) < 7)
    # I expect one bin with examples, whose score and accuracy agree.
    (full,) = [one for one in bins if one.examples]
    assert full.low < 0.7 <= full.high
    assert (full.examples, full.score, full.accuracy) == (10, pytest.approx(0.7), 0.7)
    assert [one.score for one in bins].count(None) == 14


def test_an_overconfident_model_has_its_excess_as_calibration_error() -> None:
    # Given a model that gives a score of 0.9 for one of two classes and is right half of the time,
    logits = torch.tensor([[0.9, 0.1]]).log().repeat(10, 1)
    result = measure(logits, torch.arange(10) % 2, NAMES[:2])
    assert result.calibration_error == pytest.approx(0.4)


def test_bins_are_closed_above_and_a_score_of_1_has_no_bin_of_its_own() -> None:
    bins = calibration(torch.tensor([0.5, 0.500001, 0.99, 1.0]), torch.tensor([True, True, False, True]), bins=4)
    assert [one.examples for one in bins] == [0, 1, 1, 2]
    assert [(one.low, one.high) for one in bins] == [(0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)]
    assert bins[3].accuracy == 0.5 and bins[3].score == pytest.approx(0.995)


def test_top_scores_are_softmax_scores_of_the_predicted_class() -> None:
    scores, right = top_scores(torch.tensor([[0.0, 0.0, -torch.inf], [5.0, 0.0, 0.0]]), torch.tensor([1, 0]))
    assert scores.tolist() == pytest.approx([0.5, 1 / (1 + 2 * torch.exp(torch.tensor(-5.0)).item())])
    assert right.tolist() == [False, True], "of equal scores the first is predicted"


def test_half_precision_is_measured_in_single() -> None:
    logits, labels = noisy(300, 7)
    half = logits.bfloat16()
    assert measure(half, labels, NAMES) == measure(half.float(), labels, NAMES)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(InvalidInput, match="0 examples of 2 classes"):
        measure(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64), NAMES[:2])
    with pytest.raises(InvalidInput, match="5 examples of 1 classes"):
        measure(torch.zeros(5, 1), torch.zeros(5, dtype=torch.int64), NAMES[:1])
    with pytest.raises(ModelError, match="2 of 3 examples"):
        measure(torch.tensor([[0.0, 1], [torch.nan, 1], [torch.inf, 1]]), torch.tensor([1, 1, 1]), NAMES[:2])
    with pytest.raises(ValueError, match="do not fit 3 classes"):
        measure(torch.zeros(5, 2), torch.zeros(5, dtype=torch.int64), NAMES[:3])
    with pytest.raises(ValueError, match="Labels 0 to 2 do not fit 2 classes"):
        measure(torch.zeros(2, 2), torch.tensor([0, 2]), NAMES[:2])
