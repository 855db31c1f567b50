"""The routes of reviews, image by image and in groups."""

from __future__ import annotations

from fastapi import APIRouter

from producer.web.console.reviews import groups, images


def router() -> APIRouter:
    """Return the routes of reviews."""
    routes = APIRouter(prefix="/console/jobs/{id}/review", include_in_schema=False)
    images.add_routes(routes)
    groups.add_routes(routes)
    return routes
