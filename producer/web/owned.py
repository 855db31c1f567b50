"""What a token reaches: its owner's jobs, schedules, watches and datasets; with the scope `admin`, everybody's.

What belongs to somebody else is unknown rather than forbidden, so that nobody can ask which names there are.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from fastapi import Depends, Request

from contract.backend.named_records import NamedRecords
from contract.datasets.versions import Datasets
from contract.errors import InvalidInput, UnknownJob, UnknownWebhook
from contract.jobs.schedules import Schedules
from contract.jobs.specs import JOB_ID
from contract.jobs.status import Status
from contract.models.registry import Registry, check_name
from contract.online.served import ServedModels, matching
from contract.watches.record import Watches
from contract.web.tokens import Scope, Token
from contract.web.webhooks.endpoints import Endpoints
from producer.client import Client
from producer.web.access import needs
from producer.web.console import door

if TYPE_CHECKING:
    from producer.web.app import Api


@dataclass(frozen=True)
class Owned:
    """The client of a token's owner, and what that owner may see."""

    client: Client
    token: Token
    console: bool = False
    """Whether a person asks, by a page of the console, and no client of the HTTP API."""

    def sees(self, owner: str) -> bool:
        return self.token.sees_all or owner == self.token.owner

    def job(self, id: str) -> Status:
        """Return the status of a job; raises UnknownJob, for another owner's too."""
        with suppress(UnknownJob):
            status = self.client.status(id) if re.fullmatch(JOB_ID, id) else None
            if status is not None and self.sees(status.owner):
                return status
        raise UnknownJob(f"There is no job {id!r}; {self._elsewhere('jobs')}.")

    def free(self, id: str) -> bool:
        """Return whether a job of this id may be submitted: there is none, or it is this owner's."""
        try:
            return self.sees(self.client.status(id).owner)
        except UnknownJob:
            return True

    def schedule(self, name: str) -> Client:
        """Return the client that may change a schedule; raises UnknownSchedule."""
        return self._changing(Schedules, name)

    def watch(self, name: str) -> Client:
        """Return the client that may change a watch; raises UnknownWatch."""
        return self._changing(Watches, name)

    def dataset(self, ref: str) -> Client:
        """Return the client that may change the dataset of `name` or `name@version`; raises UnknownDataset."""
        return self._changing(Datasets, ref.partition("@")[0])

    def webhook(self, id: str) -> Client:
        """Return the client that may use a webhook; raises UnknownWebhook."""
        found = Endpoints(self.client.backend.store).find(id)
        if found is None or not self.sees(found.owner):
            raise UnknownWebhook(f"There is no webhook {id!r}; {self._elsewhere('webhooks')}.")
        return self.client.acting_as(found.owner or self.token.owner)

    def model(self, name: str) -> Client:
        """Return the client that may change a model: with the scope `admin`, one of its owner; raises InvalidInput."""
        if not self.token.sees_all:
            return self.client
        found = Registry(self.client.backend.store).owners.of(check_name(name))
        return self.client.acting_as(found.owner if found is not None else self.token.owner)

    def unserve(self, ref: str) -> list[str]:
        """Serve a model no longer; with the scope `admin`, whoever serves it. Raises NotServed and NotOwner."""
        if not self.token.sees_all:
            return self.client.unserve(ref)
        gone: list[str] = []
        for one in matching(ref, ServedModels(self.client.backend.store).all()):
            gone += self.client.acting_as(one.owner or self.token.owner).unserve(one.ref)
        return gone

    def _changing(self, kind: type[NamedRecords[Any]], name: str) -> Client:
        owner = self._owner(kind, name)
        if not self.sees(owner):
            raise self._unknown(kind, name)
        return self.client.acting_as(owner or self.token.owner)

    def taking(self, kind: type[NamedRecords[Any]], name: str) -> Client:
        """Return the client that may take a record over: one that nobody owns or, with the scope `admin`, anybody's.

        Raises what the kind raises for an unknown name.
        """
        owner = self._owner(kind, name)
        if owner and not self.sees(owner):
            raise self._unknown(kind, name)
        return self.client

    def _owner(self, kind: type[NamedRecords[Any]], name: str) -> str:
        with suppress(kind.unknown):
            return str(kind(self.client.backend.store).get(name).owner)
        raise self._unknown(kind, name)  # the nearest names may be another owner's

    def _unknown(self, kind: type[NamedRecords[Any]], name: str) -> InvalidInput:
        return kind.unknown(f"There is no {kind.noun} {name!r}; {self._elsewhere(kind.prefix.rstrip('/'))}.")

    def _elsewhere(self, prefix: str) -> str:
        """Return what to do about a name that is not there."""
        if self.console:
            return "it was removed, belongs to somebody else, or has another name"
        return f"GET /v1/{prefix} lists them"


def owned(scope: Scope) -> Callable[..., Awaitable[Owned]]:
    """Return a dependency: what the token of the request reaches, if it has `scope`."""

    allowed = needs(scope)

    # A coroutine, because FastAPI runs other functions in a thread, which costs more than what this does.
    async def reach(request: Request) -> Owned:
        api: Api = request.app
        token = allowed(request)
        return Owned(api.client.acting_as(token.owner), token, door.covers(request.url.path))

    return reach


Jobs: TypeAlias = Annotated[Owned, Depends(owned("jobs"))]
Infer: TypeAlias = Annotated[Owned, Depends(owned("infer"))]
Review: TypeAlias = Annotated[Owned, Depends(owned("review"))]
Admin: TypeAlias = Annotated[Owned, Depends(owned("admin"))]
"""Types of parameters, which FastAPI fills."""
