"""Models, datasets and workers over HTTP. Every owner may use every model; only its owner changes it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from contract.datasets.records import Version
from contract.datasets.versions import Datasets
from contract.models.registry import Model
from contract.records import Record
from producer.datasets import DatasetSummary
from producer.web.owned import Admin, Jobs, Review

Ref = Annotated[str, Path(max_length=200, description="`name`, `name@version` or `name@alias`.")]
Name = Annotated[str, Path(max_length=64, description="Its name.")]
Alias = Annotated[str, Path(max_length=64, description="The alias.")]


class AliasBody(Record):
    """What an alias is to stand for."""

    version: int = Field(ge=0, le=2**31, description="A version of the model.")


class DrainBody(Record):
    """Which workers are to drain."""

    worker: str = Field("", max_length=200, description="A worker, or a prefix that only one live worker has.")
    all_of: str = Field("", max_length=200, description="A host or a pool, all of whose workers drain.")


class WorkerShown(BaseModel):
    """A worker or controller that is alive."""

    name: str
    fields: dict[str, str] = Field(description="What its heartbeat says: device, queues, models, pool, …")


def models() -> APIRouter:
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


def datasets() -> APIRouter:
    """Return the routes of datasets."""
    routes = APIRouter(prefix="/v1/datasets", tags=["datasets"])

    @routes.get("")
    def list_datasets(
        owned: Review,
        limit: Annotated[int, Query(ge=1, le=200)] = 100,
        after: Annotated[str, Query(max_length=64, description="The last name of the page before.")] = "",
    ) -> list[DatasetSummary]:
        """Return datasets in the order of their names, each at its newest version; an empty page is the last."""
        found: list[DatasetSummary] = []
        while len(found) < limit and (page := owned.client.datasets(limit=limit, after=after)):
            after = page[-1].name
            found += [one for one in page if owned.sees(one.owner)]
        return found[:limit]

    @routes.get("/{ref}")
    def get_dataset(owned: Review, ref: Ref) -> DatasetSummary:
        """Return the dataset `name`, `name@number` or `name@time` with its counts."""
        return owned.dataset(ref).dataset(ref)

    @routes.get("/{name}/versions")
    def get_dataset_versions(
        owned: Review,
        name: Name,
        limit: Annotated[int, Query(ge=1, le=200)] = 100,
        before: Annotated[int, Query(ge=0, le=10**6, description="Versions before this number; 0: the newest.")] = 0,
    ) -> list[Version]:
        """Return versions of a dataset, newest first."""
        return owned.dataset(name).dataset_versions(name, limit=limit, before=before)

    @routes.delete("/{name}")
    def remove_dataset(owned: Jobs, name: Name) -> dict[str, int]:
        """Remove a dataset; the answer says how many jobs hold its images, which stay."""
        return {"jobs": owned.dataset(name).remove_dataset(name)}

    @routes.post("/{name}/own")
    def own_dataset(owned: Jobs, name: Name) -> DatasetSummary:
        """Take a dataset over that nobody owns; with the scope `admin`, anybody's."""
        return owned.taking(Datasets, name).own_dataset(name)

    return routes


def workers() -> APIRouter:
    """Return the routes of workers, for operators."""
    routes = APIRouter(prefix="/v1", tags=["workers"])

    @routes.get("/workers")
    def list_workers(owned: Admin) -> list[WorkerShown]:
        """Return the workers and controllers that are alive."""
        return [WorkerShown(name=one.name, fields=dict(one.fields)) for one in owned.client.workers()]

    @routes.post("/workers/drain")
    def drain_workers(owned: Admin, body: DrainBody) -> list[str]:
        """Ask workers to drain as on SIGTERM; the answer names those asked."""
        return owned.client.drain_workers(body.worker, all_of=body.all_of)

    @routes.get("/fleet")
    def get_fleet(owned: Admin) -> dict[str, Any]:
        """Return one look at workers, queues and jobs that have not ended."""
        found = owned.client.fleet()
        jobs = [{**asdict(job), "shards": job.shards.model_dump()} for job in found.jobs]
        return {**asdict(found), "jobs": jobs}

    return routes
