"""Schedules and watches over HTTP: what makes jobs by itself."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Body, Path, Query
from pydantic import Field

from contract.jobs.options import WatchOptions
from contract.jobs.schedules import Schedules
from contract.jobs.status import Status
from contract.records import Record
from contract.watches.record import Watches
from producer.jobs.schedules import Run, Scheduled
from producer.jobs.watches import Watched
from producer.web.bodies import ScheduleBody, WatchBody, options_of, values_of
from producer.web.owned import Jobs, Review
from producer.web.sources import checked

Name = Annotated[str, Path(max_length=64, description="Its name.")]


class ReplayBody(Record):
    """A span of time of a watch, to be labelled again with another model."""

    begin: datetime = Field(description="Planned at this time or later.")
    end: datetime | None = Field(None, description="Planned before this time; null: now.")
    model: str = Field(max_length=200, description="`name`, `name@version` or `name@alias`.")


def schedules() -> APIRouter:
    """Return the routes of schedules."""
    routes = APIRouter(prefix="/v1/schedules", tags=["schedules"])

    @routes.post("", status_code=201)
    def add_schedule(owned: Jobs, body: ScheduleBody) -> Scheduled:
        """Submit a job at each tick of a cron line."""
        arguments = checked(values_of(body.job), owned)
        return owned.client.add_schedule(
            body.name, body.job.command, arguments, cron=body.cron, timezone=body.timezone, missed=body.missed
        )

    @routes.get("")
    def list_schedules(owned: Review) -> list[Scheduled]:
        """Return every schedule by name, with its next ticks and its last run."""
        return [one for one in owned.client.schedules() if owned.sees(one.owner)]

    @routes.get("/{name}")
    def get_schedule(owned: Review, name: Name) -> Scheduled:
        """Return a schedule with its next ticks and its last run."""
        return owned.schedule(name).schedules(name)[0]

    @routes.delete("/{name}", status_code=204)
    def remove_schedule(owned: Jobs, name: Name) -> None:
        """Remove a schedule and its history; its jobs stay."""
        owned.schedule(name).remove_schedule(name)

    @routes.post("/{name}/pause")
    def pause_schedule(owned: Jobs, name: Name) -> Scheduled:
        """Let ticks pass without a job."""
        return owned.schedule(name).pause_schedule(name)

    @routes.post("/{name}/unpause")
    def unpause_schedule(owned: Jobs, name: Name) -> Scheduled:
        """Submit jobs again from the next tick on."""
        return owned.schedule(name).unpause_schedule(name)

    @routes.post("/{name}/run", status_code=202)
    def run_schedule(owned: Jobs, name: Name) -> Status:
        """Submit the job of a schedule now."""
        return owned.schedule(name).run_schedule(name)

    @routes.get("/{name}/history")
    def get_schedule_history(owned: Review, name: Name, limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> list[Run]:
        """Return the newest runs of a schedule with their jobs, newest first."""
        return owned.schedule(name).schedule_history(name, limit)

    @routes.post("/{name}/own")
    def own_schedule(owned: Jobs, name: Name) -> Scheduled:
        """Take a schedule over that nobody owns; with the scope `admin`, anybody's."""
        return owned.taking(Schedules, name).own_schedule(name)

    return routes


def watches() -> APIRouter:
    """Return the routes of watches."""
    routes = APIRouter(prefix="/v1/watches", tags=["watches"])

    @routes.post("", status_code=201)
    def add_watch(owned: Jobs, body: Annotated[WatchBody, Body()]) -> Watched:
        """Label what is under a prefix and what comes there, each object once."""
        return owned.client.submit_watch(options_of(WatchOptions, body, owned))

    @routes.get("")
    def list_watches(owned: Review) -> list[Watched]:
        """Return every watch by name, and how each stands."""
        return [one for one in owned.client.watches() if owned.sees(one.owner)]

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
