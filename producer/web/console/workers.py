"""The page of workers and queues, for operators."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from contract.fleet.snapshot import WorkerState
from producer.web.console.rendering import page
from producer.web.owned import Admin


def router() -> APIRouter:
    """Return the routes of workers."""
    routes = APIRouter(prefix="/console/workers", include_in_schema=False)

    @routes.get("")
    def list_workers(request: Request, owned: Admin) -> Response:
        fleet = owned.client.fleet()
        return page(request, "workers.html", fleet=fleet, now=fleet.at or time.time(), state_of=state_of)

    @routes.get("/part")
    def list_workers_again(request: Request, owned: Admin) -> Response:
        fleet = owned.client.fleet()
        return page(request, "workers_part.html", fleet=fleet, now=fleet.at or time.time(), state_of=state_of)

    @routes.post("/drain")
    def drain_worker(owned: Admin, worker: Annotated[str, Form(max_length=200)]) -> Response:
        """Have a worker end its shards and exit, as on SIGTERM."""
        owned.client.drain_workers(worker)
        return RedirectResponse("/console/workers", 303)

    return routes


def state_of(worker: WorkerState) -> str:
    """Return what a worker does, in a word."""
    if worker.draining:
        return "draining"
    return "unfit" if worker.unfit else "busy" if worker.busy else "ready"
