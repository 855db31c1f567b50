"""The page of a job, as it lies in the bucket; that of a classify job is made when it is first asked for."""

from __future__ import annotations

import time
from collections.abc import Callable

from contract import keys
from contract.errors import JobConflict, ObjectNotFound, RedisUnavailable, ServiceUnavailable
from contract.jobs.kinds import kind_of
from contract.jobs.lifecycle import Backend, read_end, read_spec
from contract.jobs.specs import Spec

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
    """The page of a job, HTML. That of a classify job that has ended is waited for, `timeout` seconds at most.

    Raises UnknownJob, JobConflict where the job has no page, or none yet, and ServiceUnavailable where no worker has
    made it in time.
    """
    spec = read_spec(backend.store, job)
    begun, asked = clock(), None
    while (html := _read(backend, job)) is None:
        _check(backend, spec)
        now = clock()
        if now - begun >= timeout:
            raise ServiceUnavailable(_gave_up(backend, job, timeout))
        if asked is None or now - asked >= _ASK_SECONDS:  # a message is lost where Redis was wiped
            _ask(backend, job)
            asked = now
        pause(_POLL_SECONDS)
    return html


def _read(backend: Backend, job: str) -> str | None:
    try:
        return backend.store.get(keys.JobKeys(job).report).decode()
    except ObjectNotFound:
        return None


def _check(backend: Backend, spec: Spec) -> None:
    """Raises JobConflict where no page will come, however long one waits."""
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
            f"Redis did not take the message that has the page of {job} made; start it, then ask again."
        ) from error


def _gave_up(backend: Backend, job: str, timeout: float) -> str:
    queue = keys.QUEUE_GENERATE
    if any(queue in worker.fields.get("queues", "").split(",") for worker in backend.ledger.workers()):
        return (
            f"No worker has made the page of {job} within {timeout:.0f} s; those of the queue {queue} are at their "
            "jobs, or their logs say why. Ask again later."
        )
    return (
        f"No worker is alive on the queue {queue} to make the page of {job}; start one with `imagemill up` or "
        f"`imagemill-worker run --queues {queue}`, then ask again."
    )
