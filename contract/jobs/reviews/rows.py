"""The rows of a job that people reviewed, with what they said."""

from __future__ import annotations

from collections.abc import Iterator

from contract.backend.objects import ObjectStore
from contract.jobs import results
from contract.jobs.results import Row
from contract.jobs.reviews.records import image_id
from contract.jobs.reviews.settle import settled, votes
from contract.jobs.reviews.verdicts import given


def reviewed_rows(store: ObjectStore, job: str) -> Iterator[Row]:
    """Yield the rows that were reviewed, in the order of shards, with what was said.

    `label` is the one that counts (`settle`), without an index or a score of its own; `predicted` and
    `score` are the model's, and `reviewed_by` and `reviewed_at` say who gave it last and when. `disputed` is whether
    the reviewers disagree, so that no label has more than half of them.
    """
    found = {image: settled(by) for image, by in votes(given(store, job)).items()}
    if not found:
        return
    for row in results.rows(store, job):
        one = found.get(image_id(row["key"], row["uri"]))
        if one is not None:
            told = {"label": one.given.label, "label_index": None, "predicted": row["label"]}
            who = {"reviewed_by": one.given.by, "reviewed_at": one.verdict.at, "disputed": one.disputed}
            yield {**row, **told, **who}
