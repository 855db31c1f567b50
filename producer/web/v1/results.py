"""The rows of jobs and watches over HTTP, a shard at a time: JSON lines, or an Arrow stream for who accepts one."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Annotated, Any, Literal

import pyarrow as pa
from fastapi import APIRouter, Header, Path, Query
from starlette.responses import StreamingResponse

from contract.data.label_rows import schema
from contract.errors import InvalidInput
from contract.jobs import lifecycle, results
from contract.jobs.reviews.rows import reviewed_rows
from contract.jobs.sources import source_kind
from producer.exports.labels.source import rounded
from producer.jobs.watched_rows import parse_time
from producer.web.owned import Review
from producer.web.v1.jobs import Id

JSON_LINES, ARROW = "application/x-ndjson", "application/vnd.apache.arrow.stream"
_AT_ONCE = 256
"""Rows in a piece of JSON lines."""
_STREAMS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The rows that are committed so far.",
        "content": {
            JSON_LINES: {"schema": {"type": "string", "description": "One JSON object a line."}},
            ARROW: {"schema": {"type": "string", "description": "An Arrow IPC stream."}},
        },
    }
}
Accept = Annotated[str, Header(description=f"`{ARROW}` for record batches; JSON lines else.")]


def router() -> APIRouter:
    """Return the routes of rows."""
    routes = APIRouter(prefix="/v1", tags=["results"])

    @routes.get("/jobs/{id}/results", response_class=StreamingResponse, responses=_STREAMS)
    def get_results(
        owned: Review,
        id: Id,
        status: Annotated[
            Literal["all", "error", "reviewed"],
            Query(description="`error`: failed images only; `reviewed`: those that somebody reviewed, as JSON lines."),
        ] = "all",
        accept: Accept = "",
    ) -> StreamingResponse:
        """Return the labels of a job as they are committed, failures included, in the order of its shards."""
        owned.job(id)
        store = owned.client.backend.store
        spec = lifecycle.read_classify(store, id)
        if status == "reviewed":
            return StreamingResponse(_lines(_begun(reviewed_rows(store, id))), media_type=JSON_LINES)
        tables = (table for _, table in results.tables(store, id, failed=status == "error"))
        # The first shard is read before the answer begins, so that what is wrong with it is an answer.
        begun = _begun(tables)
        if ARROW in accept:
            columns = schema(
                embedding=spec.embed,
                watched=source_kind(spec.source.kind).watched,
                archived=spec.source.archived,
            )
            return StreamingResponse(_arrow(begun, columns), media_type=ARROW)
        return StreamingResponse(_lines(row for table in begun for row in table.to_pylist()), media_type=JSON_LINES)

    @routes.get("/watches/{name}/results", response_class=StreamingResponse, responses=_STREAMS)
    def get_watched_results(
        owned: Review,
        name: Annotated[str, Path(max_length=64, description="Name of a watch.")],
        since: Annotated[
            str,
            Query(max_length=40, description="Planned at this time or later: `2026-11-26T08:00`, or `15m` ago."),
        ] = "",
    ) -> StreamingResponse:
        """Return the rows of a watch that are committed, failures included, as JSON lines."""
        client = owned.watch(name)
        try:
            begin = parse_time(since) if since else None
        except OverflowError:
            raise InvalidInput(f"since {since!r} is longer ago than time goes; write it as 15m or 2h.") from None
        rows = _begun(client.watched_rows(name, since=begin))
        return StreamingResponse(_lines(rows), media_type=JSON_LINES)

    return routes


def _begun(found: Iterator[Any]) -> Iterator[Any]:
    """Return the same iterator with its first element read; raises what that raises."""
    first = list(zip(range(1), found, strict=False))
    return chain((one for _, one in first), found)


def _lines(rows: Iterable[results.Row]) -> Iterator[bytes]:
    some: list[str] = []
    for row in rows:
        some.append(json.dumps(rounded(row), ensure_ascii=False) + "\n")
        if len(some) == _AT_ONCE:
            yield "".join(some).encode("utf-8", "backslashreplace")
            some.clear()
    yield "".join(some).encode("utf-8", "backslashreplace")


def _arrow(tables: Iterable[pa.Table], columns: pa.Schema) -> Iterator[bytes]:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, columns) as writer:
        for table in tables:
            writer.write_table(table.select(columns.names).cast(columns))
            yield _taken(sink)
    yield _taken(sink)


def _taken(sink: io.BytesIO) -> bytes:
    found = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return found
