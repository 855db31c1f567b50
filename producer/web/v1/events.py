"""`GET /v1/jobs/{id}/events`: the progress of a job as server-sent events."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Annotated, TypeAlias

import anyio.to_thread
from fastapi import APIRouter, Header, Request, Response
from starlette.responses import StreamingResponse

from contract.errors import ImagemillError
from contract.jobs.status import Status
from producer.web.access import still_valid
from producer.web.following import Follower
from producer.web.owned import Review
from producer.web.problems import Problem, of_error
from producer.web.v1.jobs import Id

if TYPE_CHECKING:
    from producer.web.app import Api

Check: TypeAlias = Callable[[], Awaitable[None]]
"""Raises Problem once the token of a stream is no longer valid."""
_SILENT_SECONDS = 15.0
"""Without a change, a comment keeps proxies from closing the connection."""
_LONGEST_SECONDS = 900.0
"""Then the stream ends, and the client comes back with its token and the last id, as browsers do by themselves."""


def router() -> APIRouter:
    """Return the route of events."""
    routes = APIRouter(prefix="/v1/jobs", tags=["jobs"])

    @routes.get(
        "/{id}/events",
        response_class=StreamingResponse,
        responses={
            200: {
                "description": "Events `status`, and a last one `end`; the data of each is the status as JSON.",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            },
            204: {"description": "The client has seen the end already."},
        },
    )
    async def follow_job(
        request: Request,
        owned: Review,
        id: Id,
        last_event_id: Annotated[str, Header(max_length=64, description="The id of the last event seen.")] = "",
    ) -> Response:
        """Send the status of a job now and whenever it changes, until it has ended."""
        now = await anyio.to_thread.run_sync(owned.job, id)
        if now.ended and last_event_id == event_id(now):
            return Response(status_code=204)
        api: Api = request.app
        events = _events(api.follower, now, last_event_id, partial(still_valid, api.access, owned.token))
        return StreamingResponse(events, media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    return routes


def event_id(status: Status) -> str:
    """Return what names a state of a job, the same from every server process."""
    return hashlib.sha256(status.model_dump_json().encode()).hexdigest()[:16]


async def updates(follower: Follower, now: Status, check: Check) -> AsyncGenerator[Status | None, None]:
    """Yield the states of a job until it has ended or some minutes are over; None whenever nothing changed for a while.

    `check` is awaited before each but the first. Close it, as `contextlib.aclosing` does. Raises what
    following a job and `check` raise.
    """
    first = True
    ends = asyncio.get_running_loop().time() + _LONGEST_SECONDS
    statuses = follower.follow(now)
    coming: asyncio.Task[Status] | None = None
    try:
        while asyncio.get_running_loop().time() < ends:
            coming = coming or asyncio.ensure_future(anext(statuses))
            done, _ = await asyncio.wait([coming], timeout=_SILENT_SECONDS)
            if not first:
                await check()
            first = False
            if not done:
                yield None
                continue
            try:
                status = coming.result()
            except StopAsyncIteration:
                return
            coming = None
            yield status
    finally:
        if coming is not None:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
        await statuses.aclose()


async def _events(follower: Follower, now: Status, last: str, check: Check) -> AsyncGenerator[str, None]:
    yield "retry: 1000\n\n"
    async with aclosing(updates(follower, now, check)) as statuses:
        try:
            async for status in statuses:
                if status is None:
                    yield ":\n\n"
                elif event_id(status) != last:
                    kind = "end" if status.ended else "status"
                    yield f"id: {event_id(status)}\nevent: {kind}\ndata: {status.model_dump_json()}\n\n"
        except (ImagemillError, Problem) as error:
            problem = error if isinstance(error, Problem) else of_error(error)
            yield f"event: error\ndata: {bytes(problem.response().body).decode()}\n\n"
