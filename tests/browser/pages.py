"""The pages of the console, so that what is asked of each page is asked of all."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi.routing import APIRoute

from producer.web.console.routes import ROUTERS

NO_PAGES = {
    "/",
    "/console",
    "/console/",
    "/console/static/{name}",
    "/console/parts/running",
    "/console/parts/ended",
    "/console/parts/watches",
    "/console/watches/{name}/part",
    "/console/webhooks/{id}/part",
    "/console/workers/part",
    "/console/jobs/{id}/events",
    "/console/jobs/{id}/samples",
    "/console/jobs/{id}/pictures/{shard}/{place}",
    "/console/jobs/{id}/made/{shard}/{offset}/{size}",
    "/console/jobs/{id}/report",
    "/console/jobs/{id}/training",
    "/console/jobs/{id}/epochs/{epoch}",
    "/console/jobs/{id}/evaluation",
    "/console/jobs/{id}/images/kept",
    "/console/models/{ref}/files/{name}",
}
"""What the console answers besides: parts that its pages load, pictures, ways to the first page, and the report that
a job wrote, which has tests of its own."""


def paths(job: str, model: str, made: str, dataset: str, webhook: str) -> list[str]:
    """Return an address of each page, below `/console/`; `made` is a job that made images, for a dataset."""
    return [
        "sign-in",
        "jobs",
        f"jobs/{job}",
        f"jobs/{job}/errors",
        f"jobs/{job}/review",
        f"jobs/{job}/review/groups",
        f"jobs/{made}",
        f"jobs/{made}/images",
        "errors",
        "datasets",
        f"datasets/{dataset}",
        "watches",
        "watches/camera",
        "schedules",
        "schedules/nightly",
        "webhooks",
        f"webhooks/{webhook}",
        "models",
        f"models/{model}",
        "new/classify",
        "try-it",
        "workers",
        "tokens",
        "jobs/none-of-this-name",
    ]


def left_out(visited: Sequence[str]) -> set[str]:
    """Return the routes of pages that none of these addresses reaches."""
    routes = [route for make in ROUTERS for route in make().routes if isinstance(route, APIRoute)]
    pages = [route for route in routes if "GET" in (route.methods or ()) and route.path not in NO_PAGES]
    return {page.path for page in pages if not any(page.path_regex.match(f"/console/{path}") for path in visited)}
