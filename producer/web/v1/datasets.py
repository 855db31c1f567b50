"""Datasets over HTTP, with their versions."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from contract.datasets.records import Version
from contract.datasets.versions import Datasets
from producer.datasets import DatasetSummary
from producer.web.owned import Jobs, Review

Ref = Annotated[str, Path(max_length=200, description="`name`, `name@number` or `name@time`.")]
Name = Annotated[str, Path(max_length=64, description="Its name.")]


def router() -> APIRouter:
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
