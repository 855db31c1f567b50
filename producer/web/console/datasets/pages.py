"""The pages of generated images: candidates with sliders for thresholds, and datasets with their versions."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from contract.data.image_index import REJECT_REASONS
from contract.jobs import lifecycle
from contract.jobs.results import Row
from contract.jobs.specs import ImagesSpec, Synthesize
from contract.jobs.status import Status
from producer.datasets import DatasetSummary
from producer.web.console.datasets.candidates import MOST, Candidates, Held, Order, step_of, thresholds_of
from producer.web.console.jobs.samples import Sample
from producer.web.console.rendering import page
from producer.web.owned import Owned, Review
from producer.web.v1.datasets import Ref
from producer.web.v1.jobs import Id

_TILES = 24
_ON_A_PAGE = 48
_DATASETS = 30
_VERSIONS = 100

Score = Annotated[float, Query(ge=0, le=1)]
Far = Annotated[float, Query(ge=0, le=2)]


def router() -> APIRouter:
    """Return the routes of generated images."""
    routes = APIRouter(prefix="/console", include_in_schema=False)
    held = Held()

    def candidates(owned: Owned, id: str) -> tuple[Status, ImagesSpec, Candidates]:
        status, store = owned.job(id), owned.client.backend.store
        spec = lifecycle.read_images(store, id)
        return status, spec, held.of(store, status, spec)

    @routes.get("/jobs/{id}/images")
    def browse(
        request: Request,
        owned: Review,
        id: Id,
        reason: Annotated[str, Query(max_length=40)] = "",
        label: Annotated[str, Query(max_length=1000)] = "",
        begin: Annotated[int, Query(ge=0, le=10**9)] = 0,
    ) -> Response:
        """Show accepted images, or the candidates that were rejected for a reason, and the sliders."""
        status, spec, found = candidates(owned, id)
        rows, number = found.browse(label=label, reason=reason, begin=begin, most=_ON_A_PAGE)
        score, distance = thresholds_of(spec)
        end = max(found.farthest, distance, 0.001)
        return page(
            request,
            "datasets/job_images.html",
            job=status,
            spec=spec,
            found=found,
            synthesized=isinstance(spec, Synthesize),
            reasons=found.reasons(),
            REASONS=REJECT_REASONS,
            reason=reason,
            label=label,
            begin=begin,
            after=begin + _ON_A_PAGE if begin + _ON_A_PAGE < number else 0,
            before=max(0, begin - _ON_A_PAGE),
            number=number,
            samples=[made(row) for row in rows],
            score=score,
            distance=distance,
            farthest=end,
            steps=(step_of(score, 1.0), step_of(distance, end)),
            most=MOST,
            **_kept(found, score, distance, "score"),
        )

    @routes.get("/jobs/{id}/images/kept")
    def show_kept(
        request: Request,
        owned: Review,
        id: Id,
        score: Score = 0.0,
        distance: Far = 0.0,
        order: Annotated[Order, Query()] = "score",
    ) -> Response:
        """Return what thresholds would keep: counts by class, and the images on both sides of the edge."""
        status, _, found = candidates(owned, id)
        return page(
            request, "datasets/job_images_kept.html", job=status, found=found, **_kept(found, score, distance, order)
        )

    @routes.get("/datasets")
    def list_datasets(request: Request, owned: Review, after: Annotated[str, Query(max_length=64)] = "") -> Response:
        """Show datasets by name, each at its newest version."""
        found: list[DatasetSummary] = []
        while len(found) <= _DATASETS and (some := owned.client.datasets(limit=_DATASETS + 1, after=after)):
            after = some[-1].name
            found += [one for one in some if owned.sees(one.owner)]
        more = found[_DATASETS - 1].name if len(found) > _DATASETS else ""
        return page(request, "datasets/datasets.html", datasets=found[:_DATASETS], after=more)

    @routes.get("/datasets/{ref}")
    def show_dataset(request: Request, owned: Review, ref: Ref) -> Response:
        """Show a dataset at a version: its classes, and every version up to it with the job that made it."""
        client = owned.dataset(ref)
        found = client.dataset(ref)
        versions = (
            client.dataset_versions(found.name, limit=_VERSIONS, before=found.version + 1) if found.version else []
        )
        classes = sorted(found.classes.items())
        return page(request, "datasets/dataset.html", dataset=found, versions=versions, classes=classes)

    return routes


def made(row: Row) -> Sample:
    """Return a candidate with the end of the address of its picture; empty for one whose file is not kept."""
    kept = row["offset"] is not None
    return Sample(row, f"made/{row['shard']}/{row['offset']}/{row['size']}" if kept else "")


def _kept(found: Candidates, score: float, distance: float, order: Order) -> dict[str, Any]:
    kept = found.kept(score, distance, order=order, most=_TILES)
    return {
        "kept": kept,
        "inside": [made(row) for row in kept.inside],
        "outside": [made(row) for row in kept.outside],
    }
