"""Moves what a segment of a watch has labelled to the archive of the watch: copied, checked, and then deleted.

Each version of an object has one address in the archive, which its manifest names, so a copy that is made twice is one.
The store itself compares etags as it copies and as it deletes, so what was overwritten meanwhile is neither copied nor
deleted. Killed anywhere, an image is at one of the two addresses or at both, and whoever reads it looks at both
(`contract.data.image_bytes`).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from functools import partial

from contract.backend.objects import ObjectStore
from contract.data.items import Item, parse_s3
from contract.data.label_rows import OK
from contract.errors import ObjectChanged, ObjectDamaged, ObjectNotFound, StoreRefused
from contract.jobs.commits import in_parallel
from contract.jobs.results import with_items
from contract.watches.archive import ArchivedSegment, record_archived

log = logging.getLogger(__name__)

_THREADS = 8


def move(store: ObjectStore, root: str, segment: int, job: str, run: int) -> ArchivedSegment:
    """Move the labelled images of a segment's job, and record it below `root`, the folder of its watch.

    It is safe to do twice, at once too. Raises ObjectDamaged for a copy that is not what was labelled, and what the
    store raises; what was moved before stays moved.
    """
    moved = kept = 0
    for one in in_parallel(partial(_move, store), _labelled(store, job), threads=_THREADS):
        moved, kept = moved + one, kept + (not one)
    made = ArchivedSegment(segment=segment, job=job, run=run, moved=moved, kept=kept)
    record_archived(store, root, made)
    return made


def _labelled(store: ObjectStore, job: str) -> Iterator[tuple[Item, str | None]]:
    """Yield the items of a job, each with the sha256 of its bytes, None if it has no label."""
    for shard in with_items(store, job):
        for row, item in shard:
            yield item, row["sha256"] if row["status"] == OK else None


def _move(store: ObjectStore, labelled: tuple[Item, str | None]) -> bool:
    """Move one image; return whether it is in the archive now."""
    item, sha256 = labelled
    if sha256 is None or item.archive is None or item.etag is None:
        return False
    (bucket, key), (to_bucket, to) = parse_s3(item.uri), parse_s3(item.archive)
    try:
        store.copy(key, to, bucket=bucket, to_bucket=to_bucket, etag=item.etag)
    except ObjectNotFound:  # or another version is there
        return store.exists(to, bucket=to_bucket)  # moved before, or lost to whoever overwrote or deleted it
    except StoreRefused as error:  # such as a key that is too long
        log.warning("%s stays where it is: %s", item.uri, error)
        return False
    _check(store, item, sha256)
    try:
        store.delete(key, bucket=bucket, etag=item.etag)
    except ObjectChanged:
        log.info("%s was overwritten and stays; what was labelled is %s", item.uri, item.archive)
    return True


def _check(store: ObjectStore, item: Item, sha256: str) -> None:
    """Raise ObjectDamaged unless the copy of an image is what was labelled."""
    assert item.archive is not None, "it was copied"
    bucket, key = parse_s3(item.archive)
    size, etag = store.stat(key, bucket=bucket)
    if etag == item.etag and size == item.size:
        return
    # A store that encrypts, or one that put an upload together, gives a copy another etag.
    if hashlib.sha256(store.get(key, bucket=bucket)).hexdigest() != sha256:
        raise ObjectDamaged(
            f"{item.archive} is not what was labelled as {item.uri}, which is kept; find out who wrote to the archive."
        )
