"""Sets of reviewed labels, `review:JOB` where a source could stand: what a training read can be read again.

People go on reviewing while a model is trained, so a job that learns from reviews names a set: an object that is
written once, named by its own hash, with the label of each image that counts. The same verdicts make the same set.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import Field, ValidationError

from contract.backend.objects import ObjectStore
from contract.data.items import MAX_LABEL
from contract.errors import InvalidSource, ObjectDamaged, ObjectNotFound
from contract.jobs.reviews.records import image_id
from contract.jobs.reviews.settle import settled, votes
from contract.jobs.reviews.verdicts import given
from contract.keys.jobs import JobKeys
from contract.records import Record

PREFIX = "review:"
"""What stands before the id of a job where another source could stand."""

_REF = re.compile(r"([a-z0-9][a-z0-9-]{0,62})(?:@([0-9a-f]{16}))?")


class Reviewed(Record):
    """A line of `jobs/<id>/reviewed/<hash>.jsonl`: an image and the label that counts."""

    key: str
    uri: str
    sha256: str | None = None
    label: str = Field(min_length=1, max_length=MAX_LABEL)
    by: tuple[str, ...] = Field(description="Who reviewed it.")

    @property
    def image(self) -> str:
        """What names the image in keys."""
        return image_id(self.key, self.uri)


@dataclass(frozen=True)
class Ref:
    """What follows `review:`: a job, and the set of its reviews; none stands for those of now."""

    job: str
    digest: str = ""

    @property
    def text(self) -> str:
        return f"{self.job}@{self.digest}" if self.digest else self.job


def parse_ref(text: str) -> Ref | None:
    """Return what `JOB` or `JOB@SET` means, None for other text."""
    match = _REF.fullmatch(text)
    return Ref(match[1], match[2] or "") if match else None


def pin(store: ObjectStore, ref: Ref) -> Ref:
    """Return the set that stands for a job's reviews now, written if it is new; one that is named must exist.

    Raises InvalidSource if nobody has reviewed the job, or its reviewers agree on no image.
    """
    if ref.digest:
        read_set(store, ref)
        return ref
    found = [settled(by) for by in votes(given(store, ref.job)).values()]
    agreed = [one for one in found if not one.disputed]
    if not agreed:
        what = (
            f"The reviewers of {ref.job} agree on none of the {len(found):,} images that they reviewed; settle some"
            if found
            else f"Nobody has reviewed {ref.job} yet; review some of its labels"
        )
        raise InvalidSource(f"{what} in the console, at /console/jobs/{ref.job}/review.")
    said = ((one.verdict, one.reviewers) for one in agreed)
    lines = [
        Reviewed(key=verdict.key, uri=verdict.uri, sha256=verdict.sha256, label=verdict.label, by=by).model_dump()
        for verdict, by in sorted(said, key=lambda one: (one[0].uri, one[0].key))
    ]
    data = "".join(f"{json.dumps(line, ensure_ascii=True)}\n" for line in lines).encode()
    pinned = Ref(ref.job, hashlib.sha256(data).hexdigest()[:16])
    store.put_if_absent(JobKeys(ref.job).reviewed(pinned.digest), data)
    return pinned


def read_set(store: ObjectStore, ref: Ref) -> Iterator[Reviewed]:
    """Return the lines of a set; raises InvalidSource if it does not exist, and ObjectDamaged if it was changed."""
    key = JobKeys(ref.job).reviewed(ref.digest)
    try:
        data = store.get(key)
    except ObjectNotFound:
        raise InvalidSource(
            f"The job {ref.job} has no set {ref.digest!r} of reviews; name {PREFIX}{ref.job} for the current ones."
        ) from None
    if hashlib.sha256(data).hexdigest()[:16] != ref.digest:
        raise ObjectDamaged(f"s3://{store.bucket}/{key} is not what was written; restore it from a backup.")
    return _lines(f"s3://{store.bucket}/{key}", data)


def _lines(address: str, data: bytes) -> Iterator[Reviewed]:
    for line in data.splitlines():
        try:
            yield Reviewed.model_validate_json(line)
        except ValidationError as error:
            raise ObjectDamaged(
                f"{address} is not a set of reviews that this version can read ({type(error).__name__}); upgrade."
            ) from error
