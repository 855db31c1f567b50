"""The sections of a classifier's evaluation: figures, confusion matrix, calibration, classes.

Knows no model and no images, only the figures that it is given.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from worker.metrics.classification import Classification
from worker.pages.page import Cell, Picture, Section, Table, percent
from worker.pictures import confusion, plots
from worker.pictures.grid import to_png

_MISTAKES = 10


def sections(result: Classification, scores: ArrayLike, right: ArrayLike) -> tuple[Section, ...]:
    """Return the sections; `scores` and `right`, both [n], come from `classification.top_scores`."""
    score, hit = np.asarray(scores), np.asarray(right, dtype=bool)
    worst = result.worst_first()
    spread = plots.histogram(
        "Scores of right and wrong predictions",
        "score of the predicted class",
        {"right": score[hit], "wrong": score[~hit]},
        span=(0, 1),
    )
    matrix = confusion.draw(np.array(result.confusion, np.int64), [one.name for one in result.classes], scale=2)
    bars = plots.bars("", "F1 (%)", {one.name: one.f1 for one in worst})
    classes = tuple(
        (one.name, one.examples, one.predictions, percent(one.precision), percent(one.recall), percent(one.f1))
        for one in worst
    )
    columns = ("class", "examples", "predictions", "precision", "recall", "F1")
    return (
        Section("Headline figures", tables=(_headline(result),)),
        Section(
            "Confusion",
            pictures=(Picture(to_png(matrix), "Each row shows what the examples of one class were predicted as."),),
            tables=(_mistakes(result),),
        ),
        Section(
            "Scores",
            "A calibrated model is right in 80 % of the predictions that it gives a score of 80 %.",
            pictures=(
                Picture(plots.reliability(result.bins, result.calibration_error), "Accuracy by score, in bins."),
                Picture(spread, "Share of right and of wrong predictions at each score."),
            ),
        ),
        Section(
            "Classes",
            pictures=(Picture(bars, "F1 of each class, worst first: the harmonic mean of precision and recall."),),
            tables=(Table(columns, classes, caption="Worst F1 first. A dash: no prediction, or no example."),),
        ),
    )


def _headline(result: Classification) -> Table:
    rows: list[tuple[Cell, ...]] = [("top-1 accuracy", "the label has the highest score", percent(result.top1))]
    if result.k < len(result.classes):  # else it is 100 % whatever the model does
        rows.append(
            (f"top-{result.k} accuracy", f"the label is among the {result.k} highest scores", percent(result.top_k))
        )
    rows += [
        ("precision", "predictions of a class that are right; mean over classes", percent(result.precision)),
        ("recall", "examples of a class that are found; mean over classes", percent(result.recall)),
        ("F1", "harmonic mean of precision and recall; mean over classes", percent(result.f1)),
        ("calibration error", "mean gap between score and accuracy; 0 is best", percent(result.calibration_error)),
        ("examples", f"in {len(result.classes)} classes", result.examples),
    ]
    return Table(("figure", "meaning", "value"), tuple(rows), words=2)


def _mistakes(result: Classification) -> Table:
    names = [one.name for one in result.classes]
    counts = np.array(result.confusion)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:_MISTAKES]
    cells = [(int(row), int(column)) for row, column in zip(*np.unravel_index(order, counts.shape), strict=True)]
    rows = tuple(
        (
            names[true],
            names[predicted],
            int(counts[true, predicted]),
            percent(counts[true, predicted] / result.classes[true].examples),
        )
        for true, predicted in cells
        if counts[true, predicted]
    )
    columns = ("true class", "predicted class", "examples", "of the true class")
    return Table(columns, rows, words=2, caption="Most frequent mistakes." if rows else "There are no mistakes.")
