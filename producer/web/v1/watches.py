"""Watches over HTTP: a prefix whose objects are labelled as they come."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from operator import attrgetter
from typing import Annotated

from fastapi import APIRouter, Body, Path
from pydantic import Field

from contract.errors import UnknownWatch
from contract.jobs.options import WatchOptions
from contract.jobs.status import Status
from contract.records import Record
from contract.watches.record import Watches
from producer.jobs.listing import without_gone
from producer.jobs.watches import Watched, overview
from producer.web.bodies import WatchBody, options_of
from producer.web.owned import Jobs, Review
from producer.web.v1.paging import LINKED, Page

Name = Annotated[str, Path(max_length=64, description="Its name.")]


class ReplayBody(Record):
    """A span of time of a watch, to be labelled again with another model."""

    begin: datetime = Field(description="Planned at this time or later.")
    end: datetime | None = Field(None, description="Planned before this time; null: now.")
    model: str = Field(max_length=200, description="`name`, `name@version` or `name@alias`.")


def router() -> APIRouter:
    """Return the routes of watches."""
    routes = APIRouter(prefix="/v1/watches", tags=["watches"])

    @routes.post("", status_code=201)
    def add_watch(owned: Jobs, body: Annotated[WatchBody, Body()]) -> Watched:
        """Label what is under a prefix and what comes there, each object once."""
        return owned.client.submit_watch(options_of(WatchOptions, body, owned))

    @routes.get("", responses=LINKED)
    def list_watches(owned: Review, page: Page) -> list[Watched]:
        """Return watches by name, and how each stands."""
        backend = owned.client.backend
        names, show = Watches(backend.store).names(), without_gone(partial(overview, backend), UnknownWatch)
        return page.entries(names, show, attrgetter("name"), lambda one: owned.sees(one.owner))

    @routes.get("/{name}")
    def get_watch(owned: Review, name: Name) -> Watched:
        """Return a watch and how it stands."""
        return owned.watch(name).watch(name)

    @routes.delete("/{name}", status_code=204)
    def remove_watch(owned: Jobs, name: Name) -> None:
        """Remove a watch and what it has seen; its jobs and their rows stay."""
        owned.watch(name).remove_watch(name)

    @routes.post("/{name}/pause")
    def pause_watch(owned: Jobs, name: Name) -> Watched:
        """Plan nothing more until the watch is unpaused."""
        return owned.watch(name).pause_watch(name)

    @routes.post("/{name}/unpause")
    def unpause_watch(owned: Jobs, name: Name) -> Watched:
        """Go on where the watch was paused."""
        return owned.watch(name).unpause_watch(name)

    @routes.post("/{name}/own")
    def own_watch(owned: Jobs, name: Name) -> Watched:
        """Take a watch over that nobody owns; with the scope `admin`, anybody's."""
        return owned.taking(Watches, name).own_watch(name)

    @routes.post("/{name}/replay", status_code=202)
    def replay_watch(owned: Jobs, name: Name, body: ReplayBody) -> Status:
        """Label what a watch planned in a span of time with another model, as one job."""
        return owned.watch(name).replay_watch(name, begin=body.begin, end=body.end, model=body.model)

    return routes
