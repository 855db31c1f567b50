"""Verdicts in the bucket: each an object that is never changed, with who said it and when.

A verdict names an image by its key and address, so it outlives retries of the job. Taking one back is a second object
beside it, so a listing alone tells which verdicts stand.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator, MutableMapping, Sequence

from contract.backend.objects import ObjectStore
from contract.errors import JobConflict, ObjectDamaged, ObjectNotFound
from contract.jobs.commits import in_parallel
from contract.jobs.reviews.records import MANY, Batch, Given, Named, Verdict, Withdrawal
from contract.keys.jobs import JobKeys, parse_review
from contract.times import iso

_MOST_BYTES = 64 * 2**20
"""The size limit of a verdict or a batch."""
_TICKS = 4096
"""Parts of a millisecond that names tell apart."""


class _Names:
    """Names new verdicts: the later of two that one process gives has the greater name, whatever its clock does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def new(self, now: float | None) -> str:
        """Return a name for a verdict given at `now`, seconds since the epoch, or at this moment."""
        if now is None:
            with self._lock:
                ticks = self._last = max(time.time_ns() * _TICKS // 1_000_000, self._last + 1)
        else:
            ticks = int(now * 1000 * _TICKS)
        milliseconds, part = divmod(ticks, _TICKS)
        return f"{milliseconds:013d}-{part:03x}{secrets.randbits(20):05x}"


_names = _Names()


def add(store: ObjectStore, job: str, verdict: Verdict, now: float | None = None) -> Named:
    """Write a verdict; return its name, by which it can be withdrawn."""
    named = Named(_names.new(now), verdict.image)
    if not put(store, job, named, verdict):
        raise JobConflict("Another verdict has this name, which chance alone can do; send it again.")
    return named


def add_batch(store: ObjectStore, job: str, batch: Batch, now: float | None = None) -> Named:
    """Write a verdict on many images; return its name, by which it can be withdrawn.

    Raises JobConflict for images whose keys and addresses are too long to be read again.
    """
    named = Named(_names.new(now), MANY)
    data = batch.to_json()
    if len(data) > _MOST_BYTES:
        raise JobConflict("The names of these images are too long for one verdict; review them one by one.")
    if not store.put_if_absent(JobKeys(job).review(MANY, named.name), data):
        raise JobConflict("Another verdict has this name, which chance alone can do; send it again.")
    return named


def put(store: ObjectStore, job: str, named: Named, verdict: Verdict) -> bool:
    """Write a verdict under a name of the caller's; return False if there is one."""
    return store.put_if_absent(JobKeys(job).review(named.image, named.name), verdict.to_json())


def withdraw(store: ObjectStore, job: str, named: Named, *, by: str, imported: bool = False) -> Verdict:
    """Let a verdict, or a batch, stand no longer; return it, or the first of it.

    With `imported`, one that was imported is its annotation's, whoever brings the news. Raises JobConflict if it is not
    there, or is somebody else's.
    """
    keys = JobKeys(job)
    try:
        verdict = read(store, job, named)[0]
    except ObjectNotFound:
        raise JobConflict(f"The job {job} has no verdict {named.text!r} that could be taken back.") from None
    if verdict.by != by and not (imported and verdict.annotation):
        raise JobConflict(f"{verdict.by} gave this verdict, and only {verdict.by} can take it back; give your own.")
    record = Withdrawal(by=by, at=iso(time.time()) or "")
    store.put_if_absent(keys.review(named.image, named.name, undone=True), record.to_json())
    return verdict


def withdrawn(store: ObjectStore, job: str, named: Named) -> bool:
    """Return whether a verdict was taken back."""
    return store.exists(JobKeys(job).review(named.image, named.name, undone=True))


def read(store: ObjectStore, job: str, named: Named) -> tuple[Verdict, ...]:
    """Return a verdict, or those of a batch; raises ObjectNotFound, and ObjectDamaged for what cannot be one."""
    key = JobKeys(job).review(named.image, named.name)
    try:
        data = store.get(key, limit=_MOST_BYTES)
        if named.image == MANY:
            return tuple(Batch.model_validate_json(data).verdicts())
        return (Verdict.model_validate_json(data),)
    except ValueError as error:
        raise ObjectDamaged(
            f"s3://{store.bucket}/{key} is not a verdict that this version can read ({type(error).__name__}); upgrade, "
            "or restore it from a backup."
        ) from error


def listed(store: ObjectStore, job: str, image: str = "") -> list[Named]:
    """Return every verdict that stands, or those on one image, in the order in which they were given; none is read."""
    given: set[Named] = set()
    undone: set[Named] = set()
    for entry in store.list(JobKeys(job).review_prefix + (f"{image}/" if image else "")):
        if found := parse_review(entry.key):
            image, name, withdrawn = found
            (undone if withdrawn else given).add(Named(name, image))
    return sorted(given - undone)


Known = MutableMapping[Named, tuple[Given, ...]]
"""Verdicts that were read before: none ever changes, so none is read again."""


def given(
    store: ObjectStore,
    job: str,
    known: Known | None = None,
    *,
    most: int | None = None,
    names: Sequence[Named] | None = None,
) -> Iterator[Given]:
    """Yield every verdict that stands, in the order in which they were given; what is read is added to `known`.

    `names` is what `listed` returned before; without it the verdicts are listed.

    Raises JobConflict for more than `most` that are not known.
    """
    kept, number = {} if known is None else known, 0
    names = listed(store, job) if names is None else names
    check_number(job, len(names), most)  # before any is read
    for found in in_parallel(lambda named: _kept(store, job, named, kept), [one for one in names if one not in kept]):
        number += len(found)
        check_number(job, number, most)
    for named in names:
        yield from kept[named]


def check_number(job: str, number: int, most: int | None) -> None:
    """Raise JobConflict for more verdicts than `most`."""
    if most is not None and number > most:
        raise JobConflict(
            f"The job {job} has more than {most:,} verdicts, which is more than the console holds; "
            f"`imagemill reviews show {job}` and `imagemill results {job} --reviewed` read them all."
        )


def _kept(store: ObjectStore, job: str, named: Named, kept: Known) -> tuple[Given, ...]:
    found = kept.get(named)
    if found is None:
        found = kept[named] = tuple(Given.of(named, verdict) for verdict in read(store, job, named))
    return found
