"""Verdicts in the bucket: each an object that is never changed, with who said it and when.

A verdict names an image by its key and address, so it outlives retries of the job. Taking one back is a second object
beside it, so a listing alone tells which verdicts stand.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, MutableMapping

from contract.backend.objects import ObjectStore
from contract.errors import JobConflict, ObjectDamaged, ObjectNotFound
from contract.jobs.commits import in_parallel
from contract.jobs.reviews.records import Given, Named, Verdict, Withdrawal
from contract.keys import JobKeys, parse_review
from contract.times import iso

_MOST_BYTES = 64 * 1024
"""A verdict with the longest key, address and label takes half of this."""


def add(store: ObjectStore, job: str, verdict: Verdict, now: float | None = None) -> Named:
    """Write a verdict; return its name, by which it can be withdrawn."""
    stamp = int((time.time() if now is None else now) * 1000)
    named = Named(f"{stamp:013d}-{secrets.token_hex(4)}", verdict.image)
    if not put(store, job, named, verdict):
        raise JobConflict("Another verdict has this name, which chance alone can do; send it again.")
    return named


def put(store: ObjectStore, job: str, named: Named, verdict: Verdict) -> bool:
    """Write a verdict under a name of the caller's; return False if there is one."""
    return store.put_if_absent(JobKeys(job).review(named.image, named.name), verdict.to_json())


def withdraw(store: ObjectStore, job: str, named: Named, *, by: str, imported: bool = False) -> Verdict:
    """Let a verdict stand no longer; return it. Raises JobConflict if it is not there, or is somebody else's.

    With `imported`, one that was imported is its annotation's, whoever brings the news.
    """
    keys = JobKeys(job)
    try:
        verdict = read(store, job, named)
    except ObjectNotFound:
        raise JobConflict(f"The job {job} has no verdict {named.text!r} that could be taken back.") from None
    if verdict.by != by and not (imported and verdict.annotation):
        raise JobConflict(f"{verdict.by} gave this verdict, and only {verdict.by} can take it back; give your own.")
    record = Withdrawal(by=by, at=iso(time.time()) or "")
    store.put_if_absent(keys.review(named.image, named.name, undone=True), record.to_json())
    return verdict


def read(store: ObjectStore, job: str, named: Named) -> Verdict:
    """Return a verdict; raises ObjectNotFound, and ObjectDamaged for what cannot be one."""
    key = JobKeys(job).review(named.image, named.name)
    try:
        return Verdict.model_validate_json(store.get(key, limit=_MOST_BYTES))
    except ValueError as error:
        raise ObjectDamaged(
            f"s3://{store.bucket}/{key} is not a verdict that this version can read ({type(error).__name__}); upgrade, "
            "or restore it from a backup."
        ) from error


def listed(store: ObjectStore, job: str) -> list[Named]:
    """Return every verdict that stands, in the order in which they were given; none is read."""
    given: set[Named] = set()
    undone: set[Named] = set()
    for entry in store.list(JobKeys(job).review_prefix):
        if found := parse_review(entry.key):
            image, name, withdrawn = found
            (undone if withdrawn else given).add(Named(name, image))
    return sorted(given - undone)


def standing(store: ObjectStore, job: str) -> dict[str, Named]:
    """Return the newest verdict that stands for each image that has one, by the image; no verdict is read."""
    return {named.image: named for named in listed(store, job)}


def given(store: ObjectStore, job: str, known: MutableMapping[Named, Verdict] | None = None) -> Iterator[Given]:
    """Yield every verdict that stands, in the order in which they were given.

    Those in `known` are not read again, and what is read is added: no verdict ever changes.
    """
    kept = {} if known is None else known

    def one(named: Named) -> Given:
        verdict = kept.get(named)
        if verdict is None:
            verdict = kept[named] = read(store, job, named)
        return Given(named, verdict)

    yield from in_parallel(one, listed(store, job))
