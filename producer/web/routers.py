"""The routers of the HTTP API, one a subject."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastapi import APIRouter

from producer.web import about, catalog, events, inference_protocol, jobs, online, plans, results, uploads

ROUTERS: Sequence[Callable[[], APIRouter]] = (
    about.router,
    jobs.router,
    events.router,
    results.router,
    uploads.router,
    plans.schedules,
    plans.watches,
    online.router,
    inference_protocol.router,
    catalog.models,
    catalog.datasets,
    catalog.workers,
)
