"""The routers of the console, one a subject."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastapi import APIRouter

from producer.web.console import errors, figures, fleet, forms, job, jobs, models, plans, signing, try_it, webhooks
from producer.web.console.datasets import pages as datasets
from producer.web.console.reviews import routes as reviews

ROUTERS: Sequence[Callable[[], APIRouter]] = (
    signing.router,
    reviews.router,  # before the actions of a job, whose paths have one part more than it too
    errors.router,
    jobs.router,
    job.router,
    figures.router,
    datasets.router,
    plans.router,
    webhooks.router,
    models.router,
    forms.router,
    try_it.router,
    fleet.router,
    fleet.tokens,
)
