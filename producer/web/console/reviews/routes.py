"""The routes of reviews, image by image and in groups, which share what they keep in memory."""

from __future__ import annotations

from fastapi import APIRouter

from producer.web.console.reviews import groups, images
from producer.web.console.reviews.queues import Queues


def router() -> APIRouter:
    """Return the routes of reviews."""
    routes = APIRouter(prefix="/console/jobs/{id}/review", include_in_schema=False)
    queues = Queues()
    images.add_routes(routes, queues)
    groups.add_routes(routes, queues)
    return routes
