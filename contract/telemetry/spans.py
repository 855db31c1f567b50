"""Spans of OpenTelemetry, sent over OTLP/HTTP to where the standard variables `OTEL_*` say.

The only module that imports OpenTelemetry; `contract.telemetry.traces` imports it when traces are asked for. It has a
provider of its own, so that a program which traces itself with OpenTelemetry is not disturbed.
"""

from __future__ import annotations

import importlib.metadata
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_INSTANCE_ID, SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from contract.telemetry.traces import Identity, Value

_PATIENCE = 2.0
"""Seconds for what has not been sent when a process ends."""
_LIMITS = SpanLimits(max_span_attributes=64, max_span_attribute_length=4_000, max_events=32)

_root: ContextVar[Identity | None] = ContextVar("root", default=None)


class _Ids(RandomIdGenerator):
    """Gives the span of a whole job the ids that the others know."""

    def generate_trace_id(self) -> int:
        identity = _root.get()
        return super().generate_trace_id() if identity is None else identity.trace

    def generate_span_id(self) -> int:
        identity = _root.get()
        return super().generate_span_id() if identity is None else identity.root


class _Sampled(BatchSpanProcessor):
    """Sends the spans of some jobs, all of a job or none, and spans that are errors of all jobs."""

    def __init__(self, share: float) -> None:
        super().__init__(OTLPSpanExporter())
        self._bound = round(share * 2**64)

    def on_end(self, span: ReadableSpan) -> None:
        # The half of the trace's id that OpenTelemetry's own samplers look at.
        chosen = span.context is not None and span.context.trace_id % 2**64 < self._bound
        if chosen or span.status.status_code is StatusCode.ERROR:
            super().on_end(span)


class Spans:
    """The spans of one process."""

    def __init__(self, share: float, service: str, instance: str) -> None:
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,  # whether a span is an error is known at its end
            resource=_resource(service, instance),
            shutdown_on_exit=False,  # which waits for a server that does not answer
            id_generator=_Ids(),
            span_limits=_LIMITS,
        )
        self._provider.add_span_processor(_Sampled(share))
        self._tracer = self._provider.get_tracer("imagemill")

    @contextmanager
    def span(self, name: str, identity: Identity, attributes: Mapping[str, Value]) -> Iterator[None]:
        """Make the block a span below that of the job."""
        span = self._tracer.start_span(name, _below(identity), attributes=_named(identity, attributes))
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            yield

    @contextmanager
    def step(self, name: str, attributes: Mapping[str, Value]) -> Iterator[None]:
        """Make the block a span below the current one of ours, if there is one."""
        if not _ours(trace.get_current_span()):
            yield
            return
        span = self._tracer.start_span(name, attributes=_prefixed(attributes))
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            yield

    @contextmanager
    def request(self, known: str) -> Iterator[tuple[str, Callable[[str, int, str], None]]]:
        """Make the block the span of an HTTP request, the first of a trace; yield that trace, and what ends it.

        Names follow OpenTelemetry's conventions, where an empty method is one that is not known. No header of the
        request decides about the trace, since anybody may send one.
        """
        method = {"http.request.method": known or "_OTHER"}
        span = self._tracer.start_span(known or "HTTP", Context(), kind=SpanKind.SERVER, attributes=method)

        def answered(route: str, status: int, request: str) -> None:
            if route:
                span.update_name(f"{known} {route}")
                span.set_attribute("http.route", route)
            if status:
                span.set_attribute("http.response.status_code", status)
            span.set_attributes(_prefixed({"request": request}))

        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            yield f"{span.get_span_context().trace_id:032x}", answered

    def note(self, attributes: Mapping[str, Value]) -> None:
        """Add attributes to the current span of ours."""
        if _ours(span := trace.get_current_span()):
            span.set_attributes(_prefixed(attributes))

    def fail(self, text: str, error: BaseException | None) -> None:
        """Make the current span of ours an error."""
        if _ours(span := trace.get_current_span()):
            if error is not None:
                span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, text))

    def record(
        self,
        name: str,
        identity: Identity,
        since: float,
        until: float,
        attributes: Mapping[str, Value],
        *,
        root: bool = False,
        error: str = "",
    ) -> None:
        """Record a span that is over; the `root` of a job has the ids that all its spans know."""
        token = _root.set(identity if root else None)
        try:
            span = self._tracer.start_span(
                name,
                Context() if root else _below(identity),
                attributes=_named(identity, attributes),
                start_time=int(since * 1e9),
            )
        finally:
            _root.reset(token)
        if error:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(int(max(since, until) * 1e9))

    def close(self) -> None:
        """Send what has not been sent, for two seconds at most, and end."""

        def end() -> None:
            self._provider.force_flush()
            self._provider.shutdown()

        # On a thread that is not waited for longer: OpenTelemetry's own time limits do not hold.
        thread = threading.Thread(target=end, name="traces", daemon=True)
        thread.start()
        thread.join(_PATIENCE)


def _below(identity: Identity) -> Context:
    flags = TraceFlags(TraceFlags.SAMPLED)
    parent = SpanContext(identity.trace, identity.root, is_remote=True, trace_flags=flags)
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


def _ours(span: Span) -> bool:
    """Return whether a span is one of this module, and not of a program that uses it as a library."""
    scope = span.instrumentation_scope if isinstance(span, ReadableSpan) else None
    return scope is not None and scope.name == "imagemill"


def _named(identity: Identity, attributes: Mapping[str, Value]) -> dict[str, Value]:
    return _prefixed({"job": identity.job, **attributes})


def _prefixed(attributes: Mapping[str, Value]) -> dict[str, Value]:
    return {f"imagemill.{name}": value for name, value in attributes.items()}


def _resource(service: str, instance: str) -> Resource:
    """Return what these spans say of their process; what the standard variables say wins."""
    given = Resource.create()
    ours = {SERVICE_NAME: service, SERVICE_VERSION: importlib.metadata.version("imagemill")}
    ours |= {SERVICE_INSTANCE_ID: instance} if instance else {}
    told = {
        name: value
        for name, value in given.attributes.items()
        if name != SERVICE_NAME or not str(value).startswith("unknown_service")
    }
    return Resource({**ours, **told}, given.schema_url)
