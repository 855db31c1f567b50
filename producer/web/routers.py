"""The routers of the HTTP API, one a subject, and of the console."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastapi import APIRouter

from producer.web import about, catalog, events, jobs, uploads
from producer.web.console import routes as console
from producer.web.online import generating, inference_protocol
from producer.web.online import routes as online
from producer.web.plans import routes as plans
from producer.web.plans import webhooks
from producer.web.results import objects, reviews, rows

ROUTERS: Sequence[Callable[[], APIRouter]] = (
    about.router,
    jobs.router,
    events.router,
    rows.router,
    reviews.router,
    objects.router,
    uploads.router,
    plans.schedules,
    plans.watches,
    webhooks.webhooks,
    online.router,
    generating.router,
    inference_protocol.router,
    catalog.models,
    catalog.datasets,
    catalog.workers,
    *console.ROUTERS,
)
