"""The page of tokens, for operators: who may use the HTTP API."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request
from starlette.responses import Response

from contract.web.tokens import SCOPES, Tokens
from producer.web.console.rendering import page
from producer.web.owned import Admin


def router() -> APIRouter:
    """Return the route of tokens."""
    routes = APIRouter(prefix="/console/tokens", include_in_schema=False)

    @routes.get("")
    def list_tokens(request: Request, owned: Admin) -> Response:
        """Show who may use the HTTP API; nothing of a token itself is known here."""
        now = time.time()
        found = sorted(Tokens(owned.client.backend.store).all(), key=lambda one: (one.owner, one.created_at))
        return page(request, "tokens.html", tokens=[(one, one.expired(now)) for one in found], scopes=SCOPES)

    return routes
