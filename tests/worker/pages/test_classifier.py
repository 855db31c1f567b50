"""The page of a classifier's evaluation: figures, confusion, calibration, and classes, worst first."""

from __future__ import annotations

import torch

from tests.worker.pages.test_page import read
from worker.metrics import classification
from worker.pages.classifier import sections


def result(n: int = 3) -> tuple[classification.Classification, torch.Tensor, torch.Tensor]:
    """Return figures of a model with n classes: a third of the last class is predicted as the first one."""
    labels = torch.tensor([0] * 30 + [n - 1] * 30)
    predicted = labels.clone()
    predicted[50:] = 0
    logits = 4.0 * torch.nn.functional.one_hot(predicted, n).float()
    names = [f"<class {c}>" for c in range(n)]
    return classification.measure(logits, labels, names), *classification.top_scores(logits, labels)


def test_the_page_of_a_classifier_has_figures_plots_and_classes_worst_first() -> None:
    reader = read(*sections(*result()))
    headline, mistakes, classes = reader.tables
    assert headline[1] == ["top-1 accuracy", "the label has the highest score", "83.33\xa0%"]
    assert not any(row[0].startswith("top-3") for row in headline), "with three classes it is always 100 %"
    assert mistakes[1] == ["<class 2>", "<class 0>", "10", "33.33\xa0%"]
    assert len(mistakes) == 2
    assert [row[0] for row in classes] == ["class", "<class 2>", "<class 0>", "<class 1>"]
    assert classes[3] == ["<class 1>", "0", "0", "–", "–", "–"]
    assert reader.tags.count("img") == 4


def test_top_5_is_shown_for_more_than_five_classes() -> None:
    headline = read(*sections(*result(7))).tables[0]
    assert headline[2][0] == "top-5 accuracy"


def test_a_model_without_mistakes_has_none_listed() -> None:
    labels = torch.arange(2).repeat(10)
    logits = 3.0 * torch.nn.functional.one_hot(labels, 2).float()
    found = classification.measure(logits, labels, ["a", "b"])
    reader = read(*sections(found, *classification.top_scores(logits, labels)))
    assert len(reader.tables[1]) == 1
    assert "There are no mistakes." in reader.text
