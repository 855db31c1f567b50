"""What people said of a job's labels: verdicts, each an object that is never changed, with who said it and when.

A verdict names an image by its key and address, so it outlives retries of the job. Taking one back is a second object
beside it, so a listing alone tells which verdicts stand.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import Field

from contract.backend.objects import ObjectStore
from contract.data.items import MAX_LABEL
from contract.errors import InvalidInput, JobConflict, ObjectNotFound
from contract.jobs import results
from contract.jobs.commits import in_parallel
from contract.jobs.results import Row
from contract.keys import JobKeys, parse_review
from contract.records import Record
from contract.times import iso


class Verdict(Record):
    """`jobs/<id>/reviews/<image>/<name>.json`: the label that one person gave one image. Times are UTC, ISO 8601."""

    key: str = Field(description="Name of the image, as in its row.")
    uri: str = Field(description="Where the image is, as in its row.")
    sha256: str | None = Field(None, description="Hash of the image that the model saw.")
    label: str = Field(min_length=1, max_length=MAX_LABEL, description="What the image shows.")
    predicted: str | None = Field(None, description="What the model said.")
    score: float | None = Field(None, description="How sure the model was of it, 0 to 1.")
    model: str | None = Field(None, description="The model, as `name@version`.")
    by: str = Field(description="Who said so: the owner of the token.")
    at: str = Field(description="When.")


class Withdrawal(Record):
    """`jobs/<id>/reviews/<image>/<name>-undone.json`: the verdict beside it no longer stands."""

    by: str
    at: str


@dataclass(frozen=True, order=True)
class Named:
    """A verdict by its place in the bucket; later ones are greater."""

    name: str
    """Milliseconds since the epoch and 32 random bits, in the order of time."""
    image: str

    @property
    def text(self) -> str:
        return f"{self.image}/{self.name}"


def image_id(key: str, uri: str) -> str:
    """Return what names an image of a job in keys: 96 bits of a hash."""
    return hashlib.sha256(f"{uri}\n{key}".encode("utf-8", "surrogatepass")).hexdigest()[:24]


def verdict_of(row: Row, label: str, *, by: str, now: float | None = None) -> Verdict:
    """Return a verdict on a row; raises InvalidInput for what cannot be a label."""
    if not label.strip() or len(label) > MAX_LABEL:
        raise InvalidInput(f"A label has 1 to {MAX_LABEL:,} characters; this one has {len(label.strip()):,}.")
    said = {name: row.get(name) for name in ("key", "uri", "sha256", "score", "model")}
    at = iso(time.time() if now is None else now) or ""
    return Verdict.model_validate({**said, "label": label.strip(), "predicted": row.get("label"), "by": by, "at": at})


def add(store: ObjectStore, job: str, verdict: Verdict, now: float | None = None) -> Named:
    """Write a verdict; return its name, by which it can be withdrawn."""
    stamp = int((time.time() if now is None else now) * 1000)
    named = Named(f"{stamp:013d}-{secrets.token_hex(4)}", image_id(verdict.key, verdict.uri))
    if not store.put_if_absent(JobKeys(job).review(named.image, named.name), verdict.to_json()):
        raise JobConflict("Another verdict has this name, which chance alone can do; send it again.")
    return named


def withdraw(store: ObjectStore, job: str, named: Named, *, by: str) -> Verdict:
    """Let a verdict stand no longer; return it. Raises JobConflict if it is not there, or is somebody else's."""
    keys = JobKeys(job)
    try:
        verdict = Verdict.model_validate_json(store.get(keys.review(named.image, named.name)))
    except ObjectNotFound:
        raise JobConflict(f"The job {job} has no verdict {named.text!r} that could be taken back.") from None
    if verdict.by != by:
        raise JobConflict(f"{verdict.by} gave this verdict, and only {verdict.by} can take it back; give your own.")
    record = Withdrawal(by=by, at=iso(time.time()) or "")
    store.put_if_absent(keys.review(named.image, named.name, undone=True), record.to_json())
    return verdict


def standing(store: ObjectStore, job: str) -> dict[str, Named]:
    """Return the newest verdict that stands for each image that has one, by the image; no verdict is read."""
    given: set[Named] = set()
    undone: set[Named] = set()
    for entry in store.list(JobKeys(job).review_prefix):
        if found := parse_review(entry.key):
            image, name, withdrawn = found
            (undone if withdrawn else given).add(Named(name, image))
    return {named.image: named for named in sorted(given - undone)}


def verdicts(store: ObjectStore, job: str) -> Iterator[Verdict]:
    """Yield the verdict that stands for each image, in the order in which they were given."""
    keys = JobKeys(job)
    found = sorted(standing(store, job).values())
    for data in in_parallel(lambda named: store.get(keys.review(named.image, named.name)), found):
        yield Verdict.model_validate_json(data)


def rows(store: ObjectStore, job: str) -> Iterator[Row]:
    """Yield the rows that were reviewed, in the order of shards, with what was said.

    `label` is the reviewed one, without an index or a score of its own; `predicted` and `score` are the model's, and
    `reviewed_by` and `reviewed_at` say who and when.
    """
    said = {image_id(verdict.key, verdict.uri): verdict for verdict in verdicts(store, job)}
    if not said:
        return
    for row in results.rows(store, job):
        verdict = said.get(image_id(row["key"], row["uri"]))
        if verdict is not None:
            told = {"label": verdict.label, "label_index": None, "predicted": row["label"]}
            yield {**row, **told, "reviewed_by": verdict.by, "reviewed_at": verdict.at}
