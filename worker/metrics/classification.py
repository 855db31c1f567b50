"""Measure a classifier by its logits: accuracy, figures of each class, confusion matrix, calibration.

It does not know where the logits come from.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix, multiclass_stat_scores

from contract.errors import InvalidInput, ModelError
from contract.records import Record

_BINS = 15  # as in table 1 of Guo et al. 2017
_TOP = 5


class ClassScore(Record):
    """The figures of one class. Precision is None without predictions, recall without examples, F1 without either."""

    name: str
    examples: int
    predictions: int
    precision: float | None
    recall: float | None
    f1: float | None


class Bin(Record):
    """The examples with a score in (low, high]: their mean score and accuracy, both None if the bin is empty."""

    low: float
    high: float
    examples: int
    score: float | None
    accuracy: float | None


class Classification(Record):
    """The result of `measure`; shares are from 0 to 1.

    `top_k` counts an example as right if its label is among the `k` highest logits. `precision`, `recall` and `f1` are
    macro averages, means over the classes with examples. An undefined precision counts as 0, and `recall` is the
    balanced accuracy. `confusion` counts examples by true class (row) and predicted class (column), in the order of
    `classes`.
    """

    examples: int
    top1: float
    top_k: float
    k: int
    precision: float
    recall: float
    f1: float
    calibration_error: float
    classes: tuple[ClassScore, ...]
    confusion: tuple[tuple[int, ...], ...]
    bins: tuple[Bin, ...]

    def worst_first(self) -> tuple[ClassScore, ...]:
        """Return the classes by rising F1, then by name; classes without F1 come last."""
        return tuple(sorted(self.classes, key=lambda one: (2.0 if one.f1 is None else one.f1, one.name)))


def measure(logits: Tensor, labels: Tensor, classes: Sequence[str]) -> Classification:
    """Measure logits float [n, classes] against labels int64 [n], with 0 ≤ label < classes.

    Raises InvalidInput if there are no examples or fewer than two classes, and ModelError if a logit is not finite.
    """
    n, count = len(logits), len(classes)
    if n == 0 or count < 2:
        raise InvalidInput(
            f"{n} examples of {count} classes cannot be evaluated; give at least 1 example and 2 classes."
        )
    if logits.shape != (n, count) or labels.shape != (n,):
        raise ValueError(f"Logits {list(logits.shape)} and labels {list(labels.shape)} do not fit {count} classes.")
    if int(labels.min()) < 0 or int(labels.max()) >= count:
        raise ValueError(f"Labels {int(labels.min())} to {int(labels.max())} do not fit {count} classes.")
    logits = logits.float()
    if broken := n - int(logits.isfinite().all(dim=1).sum()):
        raise ModelError(f"The logits of {broken} of {n} examples are not finite; train the model again.")
    k = min(_TOP, count)
    # Take counts from torchmetrics and divide here: its float32 shares turn 9,999 of 10,000 into 0.9998999834.
    top_k = multiclass_stat_scores(logits, labels, count, average="micro", top_k=k).tolist()[0] / n
    confusion = multiclass_confusion_matrix(logits, labels, count)
    scores = _classes(multiclass_stat_scores(logits, labels, count, average=None).tolist(), classes)
    present = [one for one in scores if one.examples]
    bins = calibration(*top_scores(logits, labels))
    return Classification(
        examples=n,
        top1=int(confusion.trace()) / n,
        top_k=top_k,
        k=k,
        precision=_mean([one.precision or 0.0 for one in present]),
        recall=_mean([one.recall or 0.0 for one in present]),
        f1=_mean([one.f1 or 0.0 for one in present]),
        calibration_error=sum(one.examples / n * abs((one.accuracy or 0.0) - (one.score or 0.0)) for one in bins),
        classes=scores,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        bins=bins,
    )


def top_scores(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return the softmax score float32 [n] of the predicted class, and whether it is the label, bool [n]."""
    scores, predicted = logits.float().softmax(dim=1).max(dim=1)
    return scores, predicted == labels


def calibration(scores: Tensor, right: Tensor, bins: int = _BINS) -> tuple[Bin, ...]:
    """Sort scores [n] from 0 to 1, each right or not (bool [n]), into bins ((m−1)/M, m/M] of equal width.

    Guo et al. 2017, arXiv:1706.04599, section 2. The expected calibration error (equation 3) is the mean of
    |accuracy − score| over the bins, weighted by their examples. torchmetrics 1.9 is not used: it closes bins on the
    left, gives scores of exactly 1 their own bin, and does not return the bins to draw.
    """
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=scores.device)
    at = torch.bucketize(scores.double(), edges[1:-1])
    examples = torch.bincount(at, minlength=bins).tolist()
    score = torch.bincount(at, weights=scores.double(), minlength=bins).tolist()
    hits = torch.bincount(at[right], minlength=bins).tolist()
    limits = edges.tolist()
    return tuple(
        Bin(
            low=limits[m],
            high=limits[m + 1],
            examples=examples[m],
            score=_share(score[m], examples[m]),
            accuracy=_share(hits[m], examples[m]),
        )
        for m in range(bins)
    )


def _classes(counts: list[list[int]], names: Sequence[str]) -> tuple[ClassScore, ...]:
    """Score each class from its true positives, false positives, true negatives, false negatives and examples."""
    return tuple(
        ClassScore(
            name=name,
            examples=examples,
            predictions=hits + wrong,
            precision=_share(hits, hits + wrong),
            recall=_share(hits, examples),
            f1=_share(2 * hits, 2 * hits + wrong + missed),
        )
        for name, (hits, wrong, _, missed, examples) in zip(names, counts, strict=True)
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None
