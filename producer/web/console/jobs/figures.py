"""The parts of a job's page that show what its kind makes: the curves of a training, the matrix of an evaluation."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from starlette.responses import Response

from contract.backend.objects import ObjectStore
from contract.data.items import parse_s3
from contract.errors import ObjectNotFound
from contract.jobs import lifecycle
from contract.jobs.status import Status
from contract.keys.jobs import JobKeys
from producer.web.console import pictures
from producer.web.console.drawing import charts
from producer.web.console.rendering import page
from producer.web.owned import Review
from producer.web.problems import Problem
from producer.web.v1.jobs import Id

_MOST_BYTES = 16 * 2**20
_MOST_CLASSES = 24
"""Classes of a matrix that a page shows whole; of a larger one it shows the pairs that are most confused."""
_MOST_PAIRS = 12


def router() -> APIRouter:
    """Return the routes of figures."""
    routes = APIRouter(prefix="/console/jobs/{id}", include_in_schema=False)

    @routes.get("/training")
    def show_training(request: Request, owned: Review, id: Id) -> Response:
        """Return the curves of a training so far, and the picture of its newest epoch."""
        status, store = owned.job(id), owned.client.backend.store
        history = lifecycle.read_history(store, id)
        newest = int(history[-1]["epoch"]) if history else 0
        return page(
            request,
            "jobs/job_training.html",
            job=status,
            history=history,
            charts=charts.curves(history),
            picture=newest if newest and store.exists(JobKeys(id).picture(newest)) else 0,
        )

    @routes.get("/epochs/{epoch}")
    def get_epoch(request: Request, owned: Review, id: Id, epoch: Annotated[int, Path(ge=1, le=10**6)]) -> Response:
        """Return the picture that a training made after an epoch."""
        owned.job(id)
        try:
            data = owned.client.backend.store.get(JobKeys(id).picture(epoch), limit=_MOST_BYTES)
        except ObjectNotFound:
            raise Problem(404, f"The job {id} has no picture of epoch {epoch}.") from None
        return pictures.response(request, data)

    @routes.get("/evaluation")
    def show_evaluation(request: Request, owned: Review, id: Id) -> Response:
        """Return what an evaluation found: its matrix or most confused pairs, and its weakest classes."""
        status = owned.job(id)
        found = _evaluation(owned.client.backend.store, status)
        return page(request, "jobs/job_evaluation.html", job=status, shade=charts.shade, **_matrix(found))

    return routes


def _evaluation(store: ObjectStore, status: Status) -> dict[str, Any]:
    """Return the figures that an evaluation wrote; none while it has not ended."""
    if status.kind != "evaluate" or not status.output:
        return {}
    bucket, key = parse_s3(status.output)
    try:
        found = json.loads(store.get(f"{key}evaluation.json", bucket=bucket, limit=_MOST_BYTES))
    except (ObjectNotFound, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _matrix(found: dict[str, Any]) -> dict[str, Any]:
    """Return the names of the classes, the counts by true and predicted class, and what is weakest among them."""
    classes, counts = found.get("classes"), found.get("confusion")
    if not (isinstance(classes, list) and isinstance(counts, list) and classes and len(classes) == len(counts)):
        return {"names": [], "matrix": [], "pairs": [], "weakest": []}
    names = [str(one["name"]) for one in classes]
    pairs = [
        (number, names[true], names[taken])
        for true, row in enumerate(counts)
        for taken, number in enumerate(row)
        if number and true != taken
    ]
    weakest = sorted((one for one in classes if one.get("f1") is not None), key=lambda one: (one["f1"], one["name"]))
    return {
        "names": names,
        "matrix": counts if len(names) <= _MOST_CLASSES else [],
        "pairs": sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))[:_MOST_PAIRS],
        "weakest": weakest[:_MOST_PAIRS],
    }
