"""Finds out how far jobs are: from the ledger, or from the bucket while Redis does not answer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from contract.errors import InvalidInput, InvalidSettings, ObjectDamaged, RedisUnavailable, UnknownJob
from contract.jobs import lifecycle
from contract.jobs.lifecycle import Backend
from contract.jobs.status import Status
from producer.jobs.status_from_bucket import status_from_bucket

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.5
_THREADS = 8


def status(backend: Backend, job: str) -> Status:
    """Return how far a job is; raises UnknownJob."""
    try:
        return lifecycle.status(backend, job)
    except RedisUnavailable:
        return status_from_bucket(backend.store, job)


def list_jobs(backend: Backend, in_bucket: Iterable[str]) -> list[Status]:
    """Return the jobs `in_bucket`, and those that the ledger has and that have not ended, newest first."""
    ids = set(in_bucket)
    status_of: Callable[[str], Status] = partial(status, backend)
    try:
        ids.update(backend.ledger.active())
    except RedisUnavailable as error:
        log.info("The list is from the bucket alone: %s", error)
        # Otherwise every job would wait for Redis again.
        status_of = partial(status_from_bucket, backend.store)

    with ThreadPoolExecutor(_THREADS) as pool:
        found = [status for status in pool.map(partial(listed_status, status_of), ids) if status is not None]
    return sorted(found, key=lambda status: (status.created_at, status.id), reverse=True)


def listed_status(status_of: Callable[[str], Status], id: str) -> Status | None:
    """Return the status of a job in a list, or None for one that does not exist or whose records cannot be read."""
    try:
        return status_of(id)
    except UnknownJob:  # uploads of a job that was never submitted, or a ledger entry of a deleted one
        return None
    except InvalidSettings:
        raise
    except (InvalidInput, ObjectDamaged, LookupError, TypeError, ValueError) as error:
        log.warning("%s is left out of the list, for its records cannot be read: %s", id, error)
        return None


def follow(backend: Backend, job: str, *, patience: float, stop: threading.Event | None = None) -> Iterator[Status]:
    """Yield the status of a job twice a second, until it has ended or `stop` is set.

    Raises RedisUnavailable after `patience` seconds without Redis.
    """
    stop = stop or threading.Event()
    heard = time.monotonic()
    while not stop.is_set():
        began = time.monotonic()
        try:
            now = lifecycle.status(backend, job)
            heard = time.monotonic()
        except RedisUnavailable:
            if time.monotonic() - heard > patience:
                raise
            now = status_from_bucket(backend.store, job)
        took = time.monotonic() - began
        yield now
        if now.ended:
            return
        stop.wait(max(_POLL_SECONDS, took))  # the bucket is asked for each commit, which may take long
