"""A server that collects spans over OTLP/HTTP, as OpenTelemetry's collector does."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass(frozen=True)
class Seen:
    """A span as it came over the wire."""

    name: str
    trace: str
    id: str
    parent: str
    """Empty for the first of a trace."""
    start: int
    end: int
    """Nanoseconds since the epoch."""
    error: str
    """What its status says, if it is an error."""
    events: tuple[str, ...]
    service: str
    attributes: dict[str, Any]


class Sink:
    """What was collected; `collecting` makes one."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._lock = threading.Lock()
        self._spans: list[Seen] = []

    def spans(self, job: str) -> list[Seen]:
        """The spans of a job so far."""
        with self._lock:
            return [span for span in self._spans if span.attributes.get("imagemill.job") == job]

    def all(self) -> list[Seen]:
        """All spans so far."""
        with self._lock:
            return list(self._spans)

    def trace(self, id: str) -> list[Seen]:
        """The spans of a trace so far."""
        with self._lock:
            return [span for span in self._spans if span.trace == id]

    def take(self, body: bytes) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
        from opentelemetry.proto.trace.v1.trace_pb2 import Status

        request = ExportTraceServiceRequest.FromString(body)
        found = [
            Seen(
                name=span.name,
                trace=span.trace_id.hex(),
                id=span.span_id.hex(),
                parent=span.parent_span_id.hex(),
                start=span.start_time_unix_nano,
                end=span.end_time_unix_nano,
                error=span.status.message if span.status.code == Status.STATUS_CODE_ERROR else "",
                events=tuple(event.name for event in span.events),
                service=_values(several.resource.attributes)["service.name"],
                attributes=_values(span.attributes),
            )
            for several in request.resource_spans
            for some in several.scope_spans
            for span in some.spans
        ]
        with self._lock:
            self._spans += found


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@contextmanager
def collecting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
    """Collect the spans of this process and of those that it starts, by OpenTelemetry's own variables."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            sink.take(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    sink = Sink(f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", sink.address)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield sink
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
