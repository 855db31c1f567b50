"""What people said of a job's labels, over HTTP."""

from __future__ import annotations

from fastapi import APIRouter

from contract.jobs.reviews.agreement import ReviewSummary
from producer.web.jobs import Id
from producer.web.owned import Review


def router() -> APIRouter:
    """Return the routes of reviews."""
    routes = APIRouter(prefix="/v1/jobs/{id}/reviews", tags=["results"])

    @routes.get("", response_model=ReviewSummary)
    def get_reviews(owned: Review, id: Id) -> ReviewSummary:
        """Return who reviewed a job, how far each two agree, and on which images they do not."""
        owned.job(id)
        return owned.client.reviews(id)

    return routes
