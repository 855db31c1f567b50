"""Workers and the fleet over HTTP, for operators."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from contract.records import Record
from producer.web.owned import Admin


class DrainBody(Record):
    """Which workers are to drain."""

    worker: str = Field("", max_length=200, description="A worker, or a prefix that only one live worker has.")
    all_of: str = Field("", max_length=200, description="A host or a pool, all of whose workers drain.")


class WorkerShown(BaseModel):
    """A worker or controller that is alive."""

    name: str
    fields: dict[str, str] = Field(description="What its heartbeat says: device, queues, models, pool, …")


def router() -> APIRouter:
    """Return the routes of workers, for operators."""
    routes = APIRouter(prefix="/v1", tags=["workers"])

    @routes.get("/workers")
    def list_workers(owned: Admin) -> list[WorkerShown]:
        """Return the workers and controllers that are alive."""
        return [WorkerShown(name=one.name, fields=dict(one.fields)) for one in owned.client.workers()]

    @routes.post("/workers/drain")
    def drain_workers(owned: Admin, body: DrainBody) -> list[str]:
        """Ask workers to drain as on SIGTERM; the answer names those asked."""
        return owned.client.drain_workers(body.worker, all_of=body.all_of)

    @routes.get("/fleet")
    def get_fleet(owned: Admin) -> dict[str, Any]:
        """Return one look at workers, queues and jobs that have not ended."""
        found = owned.client.fleet()
        jobs = [{**asdict(job), "shards": job.shards.model_dump()} for job in found.jobs]
        return {**asdict(found), "jobs": jobs}

    return routes
