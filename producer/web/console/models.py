"""The pages of models: what there is, the card of a version, and which version an alias stands for."""

from __future__ import annotations

from itertools import groupby
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from contract.backend.objects import ObjectStore
from contract.errors import ObjectNotFound
from contract.keys.models import model_file
from contract.models.registry import Model, Registry
from producer.web.console.pictures import response
from producer.web.console.rendering import page
from producer.web.owned import Jobs, Review
from producer.web.problems import Problem
from producer.web.v1.models import Alias, Name, Ref

_MOST_CARD = 256 * 2**10
_MOST_PICTURE = 8 * 2**20


def router() -> APIRouter:
    """Return the routes of models."""
    routes = APIRouter(prefix="/console/models", include_in_schema=False)

    @routes.get("")
    def list_models(request: Request, owned: Review) -> Response:
        """Show the newest version of each model."""
        grouped = groupby(owned.client.models(), key=lambda model: model.name)
        newest = [(next(versions), 1 + sum(1 for _ in versions)) for _, versions in grouped]
        return page(request, "models.html", models=newest)

    @routes.get("/{ref}")
    def show_model(request: Request, owned: Review, ref: Ref) -> Response:
        """Show a version with its card, the others, and what aliases stand for."""
        model, store = owned.client.model(ref), owned.client.backend.store
        registry = Registry(store)
        return page(
            request,
            "model.html",
            model=model,
            versions=registry.models(model.name),
            aliases=owned.client.aliases(model.name),
            card=_card(store, model),
            pictures=[file.name for file in model.files if file.name.endswith((".png", ".webp", ".jpg"))],
            changes=owned.token.allows("jobs")
            and registry.may_change(model.name, owned.model(model.name).settings.owns_as),
        )

    @routes.get("/{ref}/files/{name}")
    def get_picture(request: Request, owned: Review, ref: Ref, name: str) -> Response:
        """Return a picture that a training left beside the weights."""
        model = owned.client.model(ref)
        return response(request, _file(owned.client.backend.store, model, name, _MOST_PICTURE))

    @routes.post("/{name}/aliases")
    def set_alias(
        owned: Jobs,
        name: Name,
        alias: Annotated[str, Form(max_length=64)],
        version: Annotated[int, Form(ge=0, le=2**31)],
    ) -> Response:
        """Let an alias stand for a version from now on."""
        owned.model(name).set_alias(f"{name}@{version}", alias.strip())
        return RedirectResponse(f"/console/models/{name}@{version}", 303)

    @routes.post("/{name}/aliases/{alias}/remove")
    def remove_alias(owned: Jobs, name: Name, alias: Alias) -> Response:
        """Forget an alias; the version stays."""
        owned.model(name).remove_alias(f"{name}@{alias}")
        return RedirectResponse(f"/console/models/{name}", 303)

    return routes


def _card(store: ObjectStore, model: Model) -> str:
    """Return the card as text; empty for a model that has none."""
    if model.card is None:
        return ""
    try:
        return _file(store, model, model.card, _MOST_CARD).decode("utf-8", "replace")
    except Problem:
        return ""


def _file(store: ObjectStore, model: Model, name: str, most: int) -> bytes:
    """Return a file of a model; raises Problem 404 for one that it has not, or that is larger than a page takes."""
    file = next((one for one in model.files if one.name == name), None)
    try:
        if file is not None and file.bytes <= most:
            return store.get(model_file(model.name, model.version, file.object or file.name), limit=most)
    except ObjectNotFound:
        pass
    raise Problem(404, f"{model.ref} has no such file to show.")
