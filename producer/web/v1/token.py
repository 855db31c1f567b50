"""`GET /v1/token`: what the token of a request is, for its holder."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel, Field

from contract.web.tokens import Scope, Token
from producer.web.access import token_of


class TokenShown(BaseModel):
    """A token, without what lets anybody in."""

    id: str = Field(description="Its id, as `imagemill tokens list` shows it.")
    owner: str = Field(description="Who owns what is made with it.")
    scopes: tuple[Scope, ...] = Field(description="What it may do.")
    rate: float = Field(description="Requests a second that it may make; 0: any number.")
    expires_at: str | None = Field(description="When it ends, UTC, ISO 8601; null: when it is revoked.")


def router() -> APIRouter:
    """Return the routes about the caller."""
    routes = APIRouter(prefix="/v1", tags=["token"])

    @routes.get("/token")
    async def get_token(token: Annotated[Token, Depends(token_of)]) -> TokenShown:
        """Return what the token of this request is and may do."""
        return TokenShown(**token.model_dump(include=set(TokenShown.model_fields)))

    return routes
