"""The routers of the console, one a subject."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastapi import APIRouter

from producer.web.console import models, schedules, sign_in, tokens, try_it, watches, webhooks, workers
from producer.web.console.datasets import pages as datasets
from producer.web.console.jobs import errors, figures, forms, job, listing
from producer.web.console.reviews import routes as reviews

ROUTERS: Sequence[Callable[[], APIRouter]] = (
    sign_in.router,
    reviews.router,  # before the actions of a job, whose paths have one part more than it too
    errors.router,
    listing.router,
    job.router,
    figures.router,
    datasets.router,
    watches.router,
    schedules.router,
    webhooks.router,
    models.router,
    forms.router,
    try_it.router,
    workers.router,
    tokens.router,
)
