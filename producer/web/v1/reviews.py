"""What people said of a job's labels, over HTTP."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import BaseModel, ConfigDict, Field

from contract.errors import JobConflict
from contract.jobs import lifecycle
from contract.jobs.reviews import agreement
from contract.jobs.reviews.agreement import ReviewSummary
from contract.jobs.reviews.records import Named
from producer.jobs import label_studio
from producer.jobs.import_report import ImportReport
from producer.jobs.import_reviews import bring
from producer.web.console.reviews.queues import Shared
from producer.web.owned import Review
from producer.web.v1.jobs import Id


class LabelStudioEvent(BaseModel):
    """An event of a webhook of Label Studio; what else it holds depends on its `action`."""

    model_config = ConfigDict(extra="allow")

    action: str = Field(max_length=64, description="`ANNOTATION_CREATED`, `ANNOTATION_UPDATED`, `ANNOTATIONS_DELETED`.")


def router() -> APIRouter:
    """Return the routes of reviews."""
    routes = APIRouter(prefix="/v1/jobs/{id}/reviews", tags=["results"])

    @routes.get("", response_model=ReviewSummary)
    def get_reviews(owned: Review, id: Id, queues: Shared) -> ReviewSummary:
        """Return who reviewed a job, how far each two agree, and on which images they do not."""
        owned.job(id)
        store = owned.client.backend.store
        lifecycle.read_classify(store, id)
        with suppress(JobConflict), queues.tally(store, id) as tally:
            return agreement.summary(id, tally)
        return owned.client.reviews(id)  # they are too many to be held

    @routes.post("/label-studio", response_model=ImportReport)
    def import_reviews(
        owned: Review,
        id: Id,
        queues: Shared,
        body: Annotated[list[dict[str, Any]] | LabelStudioEvent, Body(description="An export, or an event.")],
    ) -> ImportReport:
        """Import annotations of Label Studio: the tasks of an export, JSON or JSON-MIN, or what its webhook sends.

        The same annotation again changes nothing; a newer version takes the place of the one before, and a deleted
        one is taken back. Events of other things than annotations do nothing.
        """
        owned.job(id)
        if isinstance(body, LabelStudioEvent):
            event = label_studio.parse_event(body.model_dump())
        else:
            event = label_studio.Event(given=tuple(label_studio.annotations_of(body)))
        store = owned.client.backend.store
        lifecycle.read_classify(store, id)

        def note(named: Named, stands: bool) -> None:
            (queues.gave if stands else queues.withdrew)(id, named)

        return bring(store, id, event, by=owned.token.reviewer, note=note)

    return routes
