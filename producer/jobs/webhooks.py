"""Webhooks as a user sees them: how each stands, its messages and its secret.

It delivers nothing; `worker.control.webhooks` does, on the controllers.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from contract.backend.objects import ObjectStore
from contract.errors import InvalidInput
from contract.records import Record
from contract.web.webhooks.endpoints import Endpoint, Endpoints
from contract.web.webhooks.notes import webhook_of_all
from contract.web.webhooks.outbox import Outbox, Told

_MOST = 1000


class Webhook(Record):
    """A webhook and how it stands, as `imagemill webhooks list --json` prints it. Times are UTC, ISO 8601."""

    id: str = Field(description="Its id, which `--webhook` takes in place of the URL.")
    url: str = Field(description="Scheme and host of the URL; its path may be a password and is not shown.")
    state: Literal["active", "disabled"] = Field(description="`disabled`: it answered 410 and is told nothing more.")
    reason: str | None = Field(None, description="Why it is disabled.")
    waiting: int = Field(0, description="Messages that are not delivered yet.")
    owner: str = Field("", description="Whose it is; empty: the operator's, which is told of everything.")
    created_at: str = Field(description="When it was first named.")


def overview(store: ObjectStore, endpoint: Endpoint) -> Webhook:
    """Return how a webhook stands."""
    disabled = Endpoints(store).disabled(endpoint.id)
    return Webhook(
        id=endpoint.id,
        url=endpoint.host,
        state="active" if disabled is None else "disabled",
        reason=disabled.reason if disabled else None,
        waiting=Outbox(store).count_waiting(endpoint.id),
        owner=endpoint.owner,
        created_at=endpoint.created_at,
    )


def remove(store: ObjectStore, endpoint: Endpoint) -> None:
    """Delete a webhook with its messages, those that wait too; raises InvalidInput for the one that is told of all.

    The secret goes first, so that nothing is sent while messages are deleted, and the record last, so that a removal
    that was interrupted can be repeated. The same URL can then be added again: it has the same id and another secret.
    """
    if webhook_of_all(store) == endpoint.id:
        raise InvalidInput(
            f"The webhook {endpoint.id} is told of everything, as IMAGEMILL_WEBHOOK_URL of the controllers says; they "
            "would make it again. Unset that and restart them first."
        )
    endpoints = Endpoints(store)
    endpoints.silence(endpoint.id)
    Outbox(store).forget(endpoint.id)
    endpoints.remove(endpoint.id)


def resend(store: ObjectStore, endpoint: Endpoint, messages: Sequence[str]) -> list[Told]:
    """Have messages sent again, or those of the newest 1,000 that were given up; raises UnknownWebhook."""
    outbox, now = Outbox(store), time.time()
    if not messages:
        messages = [told.id for told in outbox.messages(endpoint.id, limit=_MOST) if told.state == "failed"]
    return [outbox.resend(endpoint.id, id, now) for id in messages]
