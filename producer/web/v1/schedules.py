"""Schedules over HTTP: a job at each tick of a cron line."""

from __future__ import annotations

from operator import attrgetter
from typing import Annotated

from fastapi import APIRouter, Path, Query

from contract.errors import UnknownSchedule
from contract.jobs.schedules import Schedules
from contract.jobs.status import Status
from producer.jobs.listing import without_gone
from producer.jobs.schedules import Run, Scheduled
from producer.web.bodies import ScheduleBody, values_of
from producer.web.owned import Jobs, Review
from producer.web.sources import checked
from producer.web.v1.paging import LINKED, Page

Name = Annotated[str, Path(max_length=64, description="Its name.")]


def router() -> APIRouter:
    """Return the routes of schedules."""
    routes = APIRouter(prefix="/v1/schedules", tags=["schedules"])

    @routes.post("", status_code=201)
    def add_schedule(owned: Jobs, body: ScheduleBody) -> Scheduled:
        """Submit a job at each tick of a cron line."""
        arguments = checked(values_of(body.job), owned)
        return owned.client.add_schedule(
            body.name, body.job.command, arguments, cron=body.cron, timezone=body.timezone, missed=body.missed
        )

    @routes.get("", responses=LINKED)
    def list_schedules(owned: Review, page: Page) -> list[Scheduled]:
        """Return schedules by name, each with its next ticks and its last run."""
        names = Schedules(owned.client.backend.store).names()

        def show(some: list[str]) -> list[Scheduled]:
            return owned.client.schedules(*some) if some else []

        shown = without_gone(show, UnknownSchedule)
        return page.entries(names, shown, attrgetter("name"), lambda one: owned.sees(one.owner))

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
