"""What operators do to a bucket, over HTTP: delete what nobody needs, and rebuild the ledger and the index of jobs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import chain, islice
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import Field
from starlette.responses import StreamingResponse

from contract.errors import UnknownJob
from contract.jobs.commits import in_parallel
from contract.jobs.retention import Found
from contract.jobs.specs import JobId
from contract.jobs.status import Status
from contract.keys.jobs import JobKeys
from contract.records import Record
from producer.web.owned import Admin, Owned

_LINES = "application/x-ndjson"
_STREAMS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "One JSON object a line, as it is done.",
        "content": {_LINES: {"schema": {"type": "string"}}},
    }
}


class RebuildBody(Record):
    """Jobs whose ledger entries are to be rewritten."""

    jobs: tuple[JobId, ...] | None = Field(None, max_length=10_000, description="Their ids; null: all jobs.")


def router() -> APIRouter:
    """Return the routes of upkeep."""
    routes = APIRouter(prefix="/v1", tags=["upkeep"])

    @routes.post("/gc", response_class=StreamingResponse, responses=_STREAMS)
    def collect_garbage(
        owned: Admin, dry_run: Annotated[bool, Query(description="Delete nothing, and say what would be.")] = False
    ) -> StreamingResponse:
        """Delete what nobody needs; a line says what it was, of which job, with its objects and bytes."""
        found = _begun(owned.client.gc(dry_run=dry_run))
        return StreamingResponse(_gone(found), media_type=_LINES)

    @routes.post("/rebuild", response_class=StreamingResponse, responses=_STREAMS)
    def rebuild_ledger(owned: Admin, body: RebuildBody) -> StreamingResponse:
        """Rewrite the ledger entries of jobs from the bucket alone; a line is the status of one."""
        _check_there(owned, body.jobs or ())  # before the first line, when it can be said
        found = _begun(owned.client.rebuild(body.jobs))
        return StreamingResponse(_rebuilt(found), media_type=_LINES)

    @routes.post("/rebuild-index", status_code=204)
    def rebuild_index(owned: Admin) -> None:
        """Build the index of jobs anew from the jobs themselves."""
        owned.client.rebuild_index()

    return routes


def _check_there(owned: Owned, jobs: Sequence[str]) -> None:
    store = owned.client.backend.store
    for job, there in zip(jobs, in_parallel(lambda job: store.exists(JobKeys(job).spec), jobs), strict=True):
        if not there:
            raise UnknownJob(f"There is no job {job!r}; GET /v1/jobs lists them.")


def _begun(found: Iterator[Any]) -> Iterator[Any]:
    """Return the same iterator with its first element read; raises what that raises."""
    return chain(list(islice(found, 1)), found)


def _gone(found: Iterator[Found]) -> Iterator[str]:
    for one in found:
        yield json.dumps(asdict(one)) + "\n"


def _rebuilt(found: Iterator[Status]) -> Iterator[str]:
    for one in found:
        yield one.model_dump_json() + "\n"
