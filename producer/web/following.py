"""Follows jobs for all clients that wait: one look at each job twice a second, however many listen to it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from contextvars import Context
from dataclasses import dataclass, field

import anyio.to_thread

from contract.errors import ImagemillError, ServiceUnavailable
from contract.jobs.status import Status

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5


@dataclass
class _Followed:
    status: Status
    error: ImagemillError | None = None
    listeners: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self) -> None:
        """Wake the listeners; the next change wakes them anew."""
        self.changed.set()
        self.changed = asyncio.Event()


class Follower:
    """Reads the status of jobs with `read`, on a thread, while somebody listens."""

    def __init__(self, read: Callable[[str], Status], seconds: float = _LOOK_SECONDS) -> None:
        self._read, self._seconds = read, seconds
        self._jobs: dict[str, _Followed] = {}
        self._task: asyncio.Task[None] | None = None
        self.looks = 0
        """How often a status was read."""

    async def follow(self, now: Status) -> AsyncGenerator[Status, None]:
        """Yield `now`, then the status of that job whenever it has changed, until the job has ended.

        Raises UnknownJob if it is deleted meanwhile.
        """
        yield now
        if now.ended:
            return
        one = self._jobs.setdefault(now.id, _Followed(now))
        one.listeners += 1
        if self._task is None or self._task.done():
            # In a context of its own: its lines of log are not of the request that happens to come first.
            self._task = asyncio.create_task(self._look(), context=Context())
        try:
            seen = now
            while True:
                changed = one.changed
                if one.error is not None:
                    raise one.error
                if one.status != seen:
                    seen = one.status
                    yield seen
                    if seen.ended:
                        return
                    continue
                await changed.wait()
        finally:
            one.listeners -= 1
            if not one.listeners and self._jobs.get(now.id) is one:
                del self._jobs[now.id]

    async def end(self, now: Status, seconds: float) -> Status:
        """Return the status of a job once it has ended, or the newest after `seconds`."""
        found = now
        try:
            async with asyncio.timeout(seconds), aclosing(self.follow(now)) as statuses:
                async for status in statuses:
                    found = status
        except TimeoutError:
            pass
        return found

    async def _look(self) -> None:
        now = asyncio.get_running_loop().time
        while self._jobs:
            began = now()
            for id, one in list(self._jobs.items()):
                try:
                    status = await anyio.to_thread.run_sync(self._read, id)
                    self.looks += 1
                except ServiceUnavailable as error:
                    log.info("The status of %s is not known now: %s", id, error)
                    continue
                except ImagemillError as error:
                    one.error = error
                    one.tell()
                    continue
                except Exception:
                    log.exception("The status of %s cannot be read", id)
                    continue
                if status != one.status:
                    one.status = status
                    one.tell()
            # While Redis is away, a look reads each commit of a job in the bucket.
            await asyncio.sleep(max(self._seconds, now() - began))
