"""What a token reaches: its owner's jobs, schedules, watches and datasets; with the scope `admin`, everybody's.

What belongs to somebody else is unknown rather than forbidden, so that nobody can ask which names there are.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias

from fastapi import Depends, Request

from contract.datasets.versions import Datasets
from contract.errors import UnknownDataset, UnknownJob, UnknownSchedule, UnknownWatch
from contract.jobs.schedules import Schedules
from contract.jobs.specs import JOB_ID
from contract.jobs.status import Status
from contract.watches.record import Watches
from contract.web.tokens import Scope, Token
from producer.client import Client
from producer.web.access import needs

if TYPE_CHECKING:
    from producer.web.app import Api


@dataclass(frozen=True)
class Owned:
    """The client of a token's owner, and what that owner may see."""

    client: Client
    token: Token

    def sees(self, owner: str) -> bool:
        return self.token.sees_all or owner == self.token.owner

    def job(self, id: str) -> Status:
        """Return the status of a job; raises UnknownJob, for another owner's too."""
        with suppress(UnknownJob):
            status = self.client.status(id) if re.fullmatch(JOB_ID, id) else None
            if status is not None and self.sees(status.owner):
                return status
        raise UnknownJob(f"There is no job {id!r}; GET /v1/jobs lists them.")

    def free(self, id: str) -> bool:
        """Return whether a job of this id may be submitted: there is none, or it is this owner's."""
        try:
            return self.sees(self.client.status(id).owner)
        except UnknownJob:
            return True

    def schedule(self, name: str) -> Client:
        """Return the client that may change a schedule; raises UnknownSchedule."""
        try:
            owner = Schedules(self.client.backend.store).get(name).owner
        except UnknownSchedule:
            owner = None
        if owner is None or not self.sees(owner):
            raise UnknownSchedule(f"There is no schedule {name!r}; GET /v1/schedules lists them.")
        return self.client.acting_as(owner or self.token.owner)

    def watch(self, name: str) -> Client:
        """Return the client that may change a watch; raises UnknownWatch."""
        try:
            owner = Watches(self.client.backend.store).get(name).owner
        except UnknownWatch:
            owner = None
        if owner is None or not self.sees(owner):
            raise UnknownWatch(f"There is no watch {name!r}; GET /v1/watches lists them.")
        return self.client.acting_as(owner or self.token.owner)

    def dataset(self, ref: str) -> Client:
        """Return the client that may change the dataset of `name` or `name@version`; raises UnknownDataset."""
        name = ref.partition("@")[0]
        try:
            owner = Datasets(self.client.backend.store).get(name).owner
        except UnknownDataset:
            owner = None
        if owner is None or not self.sees(owner):
            raise UnknownDataset(f"There is no dataset {name!r}; GET /v1/datasets lists them.")
        return self.client.acting_as(owner or self.token.owner)


def owned(scope: Scope) -> Callable[..., Owned]:
    """Return a dependency: what the token of the request reaches, if it has `scope`."""

    allowed = needs(scope)

    def reach(request: Request) -> Owned:
        api: Api = request.app
        token = allowed(request)
        return Owned(api.client.acting_as(token.owner), token)

    return reach


Jobs: TypeAlias = Annotated[Owned, Depends(owned("jobs"))]
Infer: TypeAlias = Annotated[Owned, Depends(owned("infer"))]
Review: TypeAlias = Annotated[Owned, Depends(owned("review"))]
Admin: TypeAlias = Annotated[Owned, Depends(owned("admin"))]
"""Types of parameters, which FastAPI fills."""
