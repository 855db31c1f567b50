"""Webhooks over HTTP: who is told how jobs ended."""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field

from contract.records import Record
from contract.web.webhooks.endpoints import ROTATION_SECONDS, Endpoints
from contract.web.webhooks.outbox import Told
from producer.jobs.webhooks import Webhook, overview
from producer.web.owned import Jobs, Review
from producer.web.v1.paging import LINKED, Page

Id = Annotated[str, Path(max_length=64, description="Its id.")]


class WebhookBody(Record):
    """A webhook to be made."""

    url: str = Field(max_length=2048, description="Where messages go.")


class ResendBody(Record):
    """Messages to be sent again."""

    messages: tuple[Annotated[str, Field(max_length=64)], ...] = Field(
        (), max_length=100, description="Their ids; none: those of the newest 1,000 that were given up."
    )


class Secret(Record):
    """What messages to a webhook are signed with."""

    secret: str = Field(description="`whsec_` and base64, for the receiver alone.")


def router() -> APIRouter:
    """Return the routes of webhooks."""
    routes = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])

    @routes.post("", status_code=201)
    def add_webhook(owned: Jobs, body: WebhookBody) -> Webhook:
        """Make a webhook of a URL; one that is there already stays as it is."""
        return owned.client.add_webhook(body.url)

    @routes.get("", responses=LINKED)
    def list_webhooks(owned: Review, page: Page) -> list[Webhook]:
        """Return webhooks by id, and how each stands."""
        store = owned.client.backend.store
        there = {one.id: one for one in Endpoints(store).all() if owned.sees(one.owner)}
        return page.entries(list(there), lambda some: [overview(store, there[id]) for id in some], attrgetter("id"))

    @routes.get("/{id}")
    def get_webhook(owned: Review, id: Id) -> Webhook:
        """Return a webhook and how it stands."""
        return owned.webhook(id).webhook(id)

    @routes.get("/{id}/messages")
    def get_webhook_messages(
        owned: Review,
        id: Id,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        before: Annotated[str, Query(max_length=64, description="The last message of the page before.")] = "",
    ) -> list[Told]:
        """Return messages to a webhook and where each stands, newest first."""
        return owned.webhook(id).webhook_messages(id, limit=limit, before=before)

    @routes.get("/{id}/secret")
    def get_webhook_secret(owned: Jobs, id: Id) -> Secret:
        """Return the secret with which messages to a webhook are signed."""
        return Secret(secret=owned.webhook(id).webhook_secret(id))

    @routes.post("/{id}/rotate")
    def rotate_webhook(
        owned: Jobs, id: Id, keep: Annotated[float, Query(ge=0, le=31 * 86_400.0)] = ROTATION_SECONDS
    ) -> Secret:
        """Make a new secret; messages carry a signature by the earlier one too for `keep` seconds."""
        return Secret(secret=owned.webhook(id).rotate_webhook(id, keep=keep))

    @routes.post("/{id}/resend", status_code=202)
    def resend_webhook(owned: Jobs, id: Id, body: ResendBody) -> list[Told]:
        """Send messages again, with the same ids."""
        return owned.webhook(id).resend_webhook(id, body.messages)

    @routes.post("/{id}/enable")
    def enable_webhook(owned: Jobs, id: Id) -> Webhook:
        """Send messages again to a webhook that answered 410."""
        return owned.webhook(id).enable_webhook(id)

    @routes.delete("/{id}", status_code=204)
    def remove_webhook(owned: Jobs, id: Id) -> None:
        """Remove a webhook, its secret and its messages, those that wait too; jobs, schedules and watches stay."""
        owned.webhook(id).remove_webhook(id)

    return routes
