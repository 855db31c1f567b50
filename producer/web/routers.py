"""The routers of the HTTP API, one a subject, and of the console."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastapi import APIRouter

from producer.web.console import routes as console
from producer.web.online import generating, inference_protocol
from producer.web.online import routes as online
from producer.web.v1 import (
    datasets,
    events,
    jobs,
    models,
    objects,
    results,
    reviews,
    schedules,
    token,
    upkeep,
    uploads,
    watches,
    webhooks,
    workers,
)

ROUTERS: Sequence[Callable[[], APIRouter]] = (
    token.router,
    jobs.router,
    events.router,
    results.router,
    reviews.router,
    objects.router,
    uploads.router,
    schedules.router,
    watches.router,
    webhooks.router,
    online.router,
    generating.router,
    inference_protocol.router,
    models.router,
    datasets.router,
    workers.router,
    upkeep.router,
    *console.ROUTERS,
)
