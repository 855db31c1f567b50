"""Models over HTTP: every owner may use every model; only its owner changes it."""

from __future__ import annotations

from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Literal

import anyio
import anyio.to_thread
from fastapi import APIRouter, Path, Request
from pydantic import Field, StringConstraints

from contract.errors import InvalidInput, UnknownModel, UnknownUpload
from contract.keys.uploads import upload_prefix
from contract.models.registry import Model, Preprocess, Registry, Scalar
from contract.records import Record, Sha256
from producer.jobs.listing import without_gone
from producer.models import describe, push
from producer.web.owned import Admin, Jobs, Owned, Review
from producer.web.v1.paging import LINKED, Page

if TYPE_CHECKING:
    from producer.web.app import Api

Ref = Annotated[str, Path(max_length=200, description="`name`, `name@version` or `name@alias`.")]
Name = Annotated[str, Path(max_length=64, description="Its name.")]
Alias = Annotated[str, Path(max_length=64, description="The alias.")]
MOST_PUSHES = 4
"""Models that are tried at once, on threads of their own: each waits for a worker."""


class AliasBody(Record):
    """What an alias is to stand for."""

    version: int = Field(ge=0, le=2**31, description="A version of the model.")


class PushBody(Record):
    """A model that is to be published: an uploaded file, and what it does."""

    name: str = Field(max_length=64, description="Its name; the next version is published.")
    upload: Annotated[str, StringConstraints(pattern=r"^upload:[0-9a-f]{16}$")] = Field(
        description="The upload that is its file, one `.pt2` or `.safetensors`."
    )
    sha256: Sha256 = Field(description="Of the file, which the worker that tries it compares.")
    labels: tuple[Annotated[str, StringConstraints(max_length=1024)], ...] = Field(
        (), max_length=100_000, description="Names of its classes, in the order of its outputs."
    )
    size: int = Field(ge=1, le=4096, description="Side of its input in pixels.")
    mean: float = Field(127.5, description="Subtracted from the pixel values, which are 0 to 255.")
    std: float = Field(127.5, description="Divisor after the mean is subtracted.")
    crop: float = Field(1.0, description="Centre crop, as a fraction of the short side.")
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    channels: Literal[1, 3] = 3
    family: Annotated[str, StringConstraints(max_length=64)] | None = Field(
        None, description="With `.safetensors`: the architecture."
    )
    config: dict[Annotated[str, StringConstraints(max_length=64)], Scalar] = Field(
        {}, max_length=100, description="Parameters of the architecture."
    )
    license: str = Field("", max_length=1024, description="Licence of the weights.")
    source: str = Field("", max_length=1024, description="Where the weights come from.")
    timeout: float = Field(60.0, gt=0, le=600, description="Seconds to wait for a worker to try it.")


def router() -> APIRouter:
    """Return the routes of models."""
    routes, threads = APIRouter(prefix="/v1/models", tags=["models"]), anyio.CapacityLimiter(MOST_PUSHES)

    @routes.get("", responses=LINKED)
    def list_models(owned: Review, page: Page) -> list[Model]:
        """Return models by name, newest version first."""
        registry = Registry(owned.client.backend.store)
        refs = [f"{name}@{version}" for name, version in registry.versions()]
        show = without_gone(lambda some: [registry.get(ref) for ref in some], UnknownModel)
        return page.entries(refs, show, attrgetter("ref"), order=_place)

    @routes.post("", status_code=201, response_model=Model)
    async def push_model(request: Request, owned: Jobs, body: PushBody) -> Model:
        """Publish an uploaded file as the next version of a model, once a worker has run it; answer when it has."""
        api: Api = request.app
        async with api.pushes.taken(owned.token.owner):
            return await anyio.to_thread.run_sync(_pushed, owned, body, limiter=threads)

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


def _place(ref: str) -> tuple[str, int]:
    """Return what models are sorted by; raises ValueError for what is no `name@version`."""
    name, _, version = ref.partition("@")
    return name, -int(version)


def _pushed(owned: Owned, body: PushBody) -> Model:
    id, store = body.upload.removeprefix("upload:"), owned.client.backend.store
    prefix = upload_prefix(owned.token.owner, id)
    files = list(islice(store.list(prefix), 2))
    if not files:
        raise UnknownUpload(f"No file was uploaded as {id!r}; POST /v1/uploads says where to put them.")
    if len(files) > 1:
        raise InvalidInput(f"The upload {id!r} has several files; a model is one, so upload it alone.")
    (file,) = files
    client = owned.model(body.name)
    client.backend.ledger.workers()  # Redis is needed too, so it is not found missing halfway
    facts = body.model_dump(include={"labels", "family", "config", "license", "source"})
    draft = describe(
        body.name,
        file.key.removeprefix(prefix),
        lambda: (body.sha256, file.size),
        preprocess=body.model_dump(include=set(Preprocess.model_fields)),
        owner=client.settings.owns_as,
        **facts,
    )
    return push(client.backend, draft, lambda key: store.copy(file.key, key, etag=file.etag), timeout=body.timeout)
