"""Traces of jobs: one a job, whose spans come from producer, controller and workers (`IMAGEMILL_TRACES`); and of
requests to the HTTP API, each a trace of one span.

The ids of a trace and of its first span follow from the id of the job and its creation, so that spans of many processes
meet without being told of each other. In a process that traces nothing, a span costs a look at a variable, and
OpenTelemetry is not imported. Tracing never makes work fail.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

from contract.errors import ImagemillError, InvalidSettings, JobStopped, LeaseLost, WorkerLeaving
from contract.printable import printable
from contract.telemetry import logs

if TYPE_CHECKING:
    from contract.settings import Settings
    from contract.telemetry.spans import Spans

log = logging.getLogger(__name__)

Value = str | int | float | bool

_JOBS_AT_MOST = 1_000
_LONGEST = 500

_NONE: Mapping[str, Value] = MappingProxyType({})
_NO_ERRORS = (JobStopped, LeaseLost, WorkerLeaving)

_spans: Spans | None = None
_known: OrderedDict[str, Identity] = OrderedDict()
_lock = threading.Lock()


@dataclass(frozen=True)
class Identity:
    """What the spans of a job have in common."""

    job: str
    trace: int
    """128 bits."""
    root: int
    """64 bits: the id of the span that the others are below, of the whole job."""

    @classmethod
    def of(cls, job: str, created_at: str) -> Identity:
        """Return the identity of a job that was created at a time in ISO 8601, to the millisecond."""
        milliseconds = round(datetime.fromisoformat(created_at).timestamp() * 1000)
        digest = hashlib.sha256(f"imagemill {job} {milliseconds}".encode()).digest()
        return cls(job, int.from_bytes(digest[:16], "big"), int.from_bytes(digest[16:24], "big"))


def set_up(settings: Settings, service: str, instance: str = "") -> None:
    """Trace in this process, as `service`, if that is asked for; raises InvalidSettings if OpenTelemetry is missing."""
    global _spans
    if settings.traces is None or _spans is not None:
        return
    try:
        from contract.telemetry.spans import Spans
    except ImportError as error:
        raise InvalidSettings(
            "IMAGEMILL_TRACES is set, and OpenTelemetry is not installed; run `pip install 'imagemill[otel]'`, or "
            "unset the variable."
        ) from error
    _spans = Spans(settings.traces, service, instance)
    atexit.register(close)


def close() -> None:
    """Send what has not been sent, within two seconds, and trace nothing any more."""
    global _spans
    spans, _spans = _spans, None
    if spans is not None:
        spans.close()


@contextmanager
def span(name: str, job: str, created: Callable[[], str], **attributes: Value) -> Iterator[None]:
    """Record the block as a span of a job, whose lines of log say the trace.

    `created` returns when the job was created; it is called once a job. An exception makes the span an error.
    """
    identity = _identity(job, created) if _spans is not None else None
    if _spans is None or identity is None:
        yield
        return
    with logs.scope(trace=f"{identity.trace:032x}"), _spans.span(name, identity, attributes):
        yield from _watched()


@contextmanager
def step(name: str, **attributes: Value) -> Iterator[None]:
    """Record the block as a span below the one that this thread is in, if it is in one."""
    if _spans is None:
        yield
        return
    with _spans.step(name, attributes):
        yield from _watched()


@contextmanager
def request(method: str) -> Iterator[Callable[[str, int, str], None]]:
    """Record the block as the span of an HTTP request, a trace of its own that its lines of log say.

    An empty `method` stands for one that is not known. Yields what is called before the block ends: with the route, the
    status, 0 for none, and the id of the request.
    """
    if _spans is None:
        yield _not_traced
        return
    with _spans.request(method) as (found, answered), logs.scope(trace=found):
        yield answered


def _not_traced(route: str, status: int, request: str) -> None:
    """Stand in for the span of a request that has none."""


def _watched() -> Iterator[None]:
    """Make the current span an error if the block raises one; a shard that must stop is none."""
    try:
        yield
    except _NO_ERRORS:
        raise
    except BaseException as error:
        fail(error)
        raise


def note(**attributes: Value) -> None:
    """Add attributes to the span that this thread is in."""
    if _spans is not None:
        _spans.note(attributes)


def fail(why: BaseException | str) -> None:
    """Mark the span that this thread is in as an error; it is sent even if its job is not sampled."""
    if _spans is not None:
        _spans.fail(_text(why), why if isinstance(why, BaseException) else None)


def record(name: str, job: str, created: Callable[[], str], since: float, **attributes: Value) -> None:
    """Record a span of a job from `since`, in seconds since the epoch, until now."""
    if _spans is not None and (identity := _identity(job, created)) is not None:
        _spans.record(name, identity, since, time.time(), attributes)


def ended(
    job: str, created_at: str, until: str, *, again: bool, error: str = "", attributes: Mapping[str, Value] = _NONE
) -> None:
    """Record a job that has ended, from its creation on; all its other spans are below this one.

    One that ends `again`, after a retry, is a span below the first, since that has been sent.
    """
    if _spans is None or (identity := _identity(job, lambda: created_at)) is None:
        return
    since, end = (datetime.fromisoformat(text).timestamp() for text in (created_at, until))
    name = "again" if again else "job"
    _spans.record(name, identity, since, end, attributes, root=not again, error=_text(error))


def _identity(job: str, created: Callable[[], str]) -> Identity | None:
    with _lock:
        found = _known.get(job)
    if found is None:
        try:
            found = Identity.of(job, created())
        except (ImagemillError, ValueError, LookupError) as error:
            log.debug("The trace of %s is not known: %s", job, error)
            return None
        with _lock:
            _known[job] = found
            if len(_known) > _JOBS_AT_MOST:
                _known.popitem(last=False)
    return found


def _text(why: BaseException | str) -> str:
    text = why if isinstance(why, str) else f"{type(why).__name__}: {why}"
    return printable(text)[:_LONGEST]
