"""Models over HTTP: every owner may use every model; only its owner changes it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import Field

from contract.models.registry import Model
from contract.records import Record
from producer.web.owned import Admin, Jobs, Review

Ref = Annotated[str, Path(max_length=200, description="`name`, `name@version` or `name@alias`.")]
Name = Annotated[str, Path(max_length=64, description="Its name.")]
Alias = Annotated[str, Path(max_length=64, description="The alias.")]


class AliasBody(Record):
    """What an alias is to stand for."""

    version: int = Field(ge=0, le=2**31, description="A version of the model.")


def router() -> APIRouter:
    """Return the routes of models."""
    routes = APIRouter(prefix="/v1/models", tags=["models"])

    @routes.get("")
    def list_models(owned: Review) -> list[Model]:
        """Return every model, by name, newest version first."""
        return owned.client.models()

    @routes.get("/{ref}")
    def get_model(owned: Review, ref: Ref) -> Model:
        """Return a model."""
        return owned.client.model(ref)

    @routes.delete("/{ref}", status_code=204)
    def remove_model(owned: Jobs, ref: Ref) -> None:
        """Remove the version `name@version`; jobs that pin it fail."""
        owned.model(ref.partition("@")[0]).remove_model(ref)

    @routes.post("/{name}/own")
    def own_model(owned: Admin, name: Name) -> dict[str, str | None]:
        """Take a model over, with its versions so far; the answer says who owned it before."""
        return {"before": owned.client.own_model(name)}

    @routes.get("/{name}/aliases")
    def get_aliases(owned: Review, name: Name) -> dict[str, int]:
        """Return the aliases of a model with the version of each."""
        return owned.client.aliases(name)

    @routes.put("/{name}/aliases/{alias}")
    def set_alias(owned: Jobs, name: Name, alias: Alias, body: AliasBody) -> Model:
        """Point an alias to a version."""
        return owned.model(name).set_alias(f"{name}@{body.version}", alias)

    @routes.delete("/{name}/aliases/{alias}", status_code=204)
    def remove_alias(owned: Jobs, name: Name, alias: Alias) -> None:
        """Remove an alias."""
        owned.model(name).remove_alias(f"{name}@{alias}")

    return routes
