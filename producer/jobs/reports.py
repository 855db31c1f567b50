"""Fetches the page of a job from the bucket, and has the page of a classify job made on the first call."""

from __future__ import annotations

import time
from collections.abc import Callable

from contract.errors import JobConflict, ObjectNotFound, RedisUnavailable, ServiceUnavailable
from contract.jobs.ends import read_end
from contract.jobs.kinds import kind_of
from contract.jobs.lifecycle import Backend, read_spec
from contract.jobs.specs import Spec
from contract.keys.jobs import JobKeys
from contract.keys.queues import QUEUE_GENERATE

_POLL_SECONDS = 0.5
_ASK_SECONDS = 20.0


def fetch(
    backend: Backend,
    job: str,
    *,
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> str:
    """Return the page of a job as HTML; wait up to `timeout` seconds for a page that is made when asked for.

    Raises UnknownJob, JobConflict if the job has no page, or none yet, and ServiceUnavailable if no worker has made it
    in time.
    """
    spec = read_spec(backend.store, job)
    begun, asked = clock(), None
    while (html := _read(backend, job)) is None:
        _check(backend, spec)
        now = clock()
        if now - begun >= timeout:
            raise ServiceUnavailable(_gave_up(backend, job, timeout))
        if asked is None or now - asked >= _ASK_SECONDS:  # a message is lost if Redis was wiped
            _ask(backend, job)
            asked = now
        pause(_POLL_SECONDS)
    return html


def _read(backend: Backend, job: str) -> str | None:
    try:
        return backend.store.get(JobKeys(job).report).decode()
    except ObjectNotFound:
        return None


def _check(backend: Backend, spec: Spec) -> None:
    """Raise JobConflict if no page will come, no matter how long the wait."""
    kind = kind_of(spec)
    if kind.page is None:
        why = f"a {kind.name} job makes none"
    elif (end := read_end(backend.store, spec.id)) is None:
        why = "it has not ended"
    elif kind.page != "when asked for":
        why = f"it ended without one, {end.state}"
    else:
        return
    raise JobConflict(f"{spec.id} has no page: {why}; `imagemill show {spec.id}` shows what it has.")


def _ask(backend: Backend, job: str) -> None:
    try:
        backend.queues.finish(job)
    except RedisUnavailable as error:
        raise RedisUnavailable(
            f"Redis did not accept the request for the page of {job}; start Redis, then ask again."
        ) from error


def _gave_up(backend: Backend, job: str, timeout: float) -> str:
    queue = QUEUE_GENERATE
    if any(queue in worker.fields.get("queues", "").split(",") for worker in backend.ledger.workers()):
        return (
            f"No worker has made the page of {job} within {timeout:.0f} s; the workers on the queue {queue} are busy, "
            "or their logs say why. Ask again later."
        )
    return (
        f"No worker is alive on the queue {queue} to make the page of {job}; start one with `imagemill up` or "
        f"`imagemill-worker run --queues {queue}`, then ask again."
    )
