"""The pages of webhooks: where messages go, what waits, and what came of each, with buttons to send again and remove.

Nothing here shows the path of a URL, which may be a password, or a secret.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import RedirectResponse, Response

from contract.jobs.commits import in_parallel
from contract.web.webhooks.notes import webhook_of_all
from contract.web.webhooks.outbox import Outbox, Told
from producer.web.console.rendering import page
from producer.web.owned import Jobs, Owned, Review
from producer.web.v1.webhooks import Id

_ON_A_PAGE = 10
"""Messages of a page; each is up to three objects to read."""
_THREADS = 8

Before = Annotated[str, Query(max_length=64)]


@dataclass(frozen=True)
class _Line:
    """A message, and the job and the schedule or watch that it is about; empty where it names none."""

    told: Told
    job: str
    plan: str


def router() -> APIRouter:
    """Return the routes of webhooks."""
    routes = APIRouter(prefix="/console/webhooks", include_in_schema=False)

    @routes.get("")
    def list_webhooks(request: Request, owned: Review) -> Response:
        found = [one for one in owned.client.webhooks() if owned.sees(one.owner)]
        outbox = Outbox(owned.client.backend.store)
        newest = in_parallel(lambda one: outbox.messages(one.id, limit=1), found, threads=_THREADS)
        return page(request, "webhooks/webhooks.html", webhooks=list(zip(found, newest, strict=True)))

    @routes.get("/{id}")
    def show_webhook(request: Request, owned: Review, id: Id, before: Before = "") -> Response:
        of_all = webhook_of_all(owned.client.backend.store) == id
        return page(request, "webhooks/webhook.html", **_facts(owned, id, before), of_all=of_all)

    @routes.get("/{id}/part")
    def show_webhook_again(request: Request, owned: Review, id: Id, before: Before = "") -> Response:
        return page(request, "webhooks/webhook_live.html", **_facts(owned, id, before))

    @routes.post("/{id}/resend")
    def resend(owned: Jobs, id: Id, message: Annotated[str, Form(max_length=64)] = "") -> Response:
        """Send a message again, or those that were given up, and show the webhook."""
        owned.webhook(id).resend_webhook(id, [message] if message else [])
        return RedirectResponse(f"/console/webhooks/{id}", 303)

    @routes.post("/{id}/enable")
    def enable(owned: Jobs, id: Id) -> Response:
        owned.webhook(id).enable_webhook(id)
        return RedirectResponse(f"/console/webhooks/{id}", 303)

    @routes.post("/{id}/remove")
    def remove(owned: Jobs, id: Id) -> Response:
        owned.webhook(id).remove_webhook(id)
        return RedirectResponse("/console/webhooks", 303)

    return routes


def _facts(owned: Owned, id: str, before: str) -> dict[str, Any]:
    client = owned.webhook(id)
    told = client.webhook_messages(id, limit=_ON_A_PAGE + 1, before=before)
    shown = told[:_ON_A_PAGE]
    return {
        "webhook": client.webhook(id),
        "lines": [_line(one) for one in shown],
        "counts": Counter(one.state for one in shown),
        "before": before,
        "after": shown[-1].id if len(told) > len(shown) else "",
        "steers": owned.token.allows("jobs"),
    }


def _line(told: Told) -> _Line:
    data = json.loads(told.body).get("data", {})
    job, plan = data.get("job"), data.get("schedule") or data.get("watch")
    return _Line(told, job if isinstance(job, str) else "", plan if isinstance(plan, str) else "")
