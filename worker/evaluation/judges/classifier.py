"""Judge a classifier of images or sequences by its served form: accuracy, figures of each class, calibration."""

from __future__ import annotations

import numpy as np
import torch

from worker.datasets.reader import Wanted
from worker.evaluation.judges import Case, Judgement, forward
from worker.metrics import classification
from worker.pages import classifier as pages


def judge(case: Case) -> Judgement:
    """Judge the model by the labelled images of the spec; of IDX files only the test part is used."""
    spec, model, lease = case.spec, case.model, case.lease
    pre = model.preprocess
    wanted = Wanted(
        size=pre.size,
        channels=3,
        frames=model.frames,
        preprocess=pre,
        classes=model.labels,
        part="test",
        min_score=spec.min_score,
    )
    prepared = case.reader.read(spec.source, wanted, case.seen)
    data = prepared.data
    case.plan(len(data), prepared.left_out)
    done = 0

    def advance(images: int) -> None:
        nonlocal done
        done += images
        lease.progress(done, 0)
        lease.check()

    with case.models.use(spec.model, spec.precision) as loaded:
        logits = np.concatenate([output.logits for output in forward(loaded.runtime, data, advance)])
        runtime, precision = loaded.runtime.name, loaded.runtime.precision
    said, labels = torch.from_numpy(logits), torch.from_numpy(data.labels)
    figures = classification.measure(said, labels, model.labels)
    scores, right = classification.top_scores(said, labels)
    return Judgement(
        figures=figures.to_json(),
        metrics=headline(figures),
        data=f"{spec.source.label}, {len(data):,} images",
        sections=pages.sections(figures, scores.numpy(), right.numpy()),
        runtime=runtime,
        precision=precision,
    )


def headline(figures: classification.Classification) -> dict[str, float]:
    """Return the figures that `imagemill show` prints."""
    return {
        "top1": figures.top1,
        f"top{figures.k}": figures.top_k,
        "precision": figures.precision,
        "recall": figures.recall,
        "f1": figures.f1,
        "calibration_error": figures.calibration_error,
    }
