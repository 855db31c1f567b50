"""Places for requests that wait on a thread for long: a number in all, and fewer for one owner."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from contract.errors import Overloaded

_AGAIN_SECONDS = 5.0


class Places:
    """The places of one process: `most` of them, of which an owner gets `each`. Used in the event loop alone.

    `noun` is what takes a place, in the plural; `seconds` is how long a request waits for one.
    """

    def __init__(self, noun: str, *, most: int, each: int, seconds: float) -> None:
        self._noun, self._most, self._each, self._seconds = noun, most, each, seconds
        self._held: Counter[str] = Counter()
        self._freed = asyncio.Event()

    @asynccontextmanager
    async def taken(self, owner: str) -> AsyncIterator[None]:
        """Hold a place while the block runs; raises Overloaded if none is free for `owner` soon."""
        try:
            async with asyncio.timeout(self._seconds):
                while not self._free(owner):
                    await self._freed.wait()
        except TimeoutError:
            who = f"{owner!r} has" if self._held[owner] >= self._each else "This server has"
            raise Overloaded(
                f"{who} as many {self._noun} under way as it may have at once; try again when one has ended.",
                retry_after=_AGAIN_SECONDS,
            ) from None
        self._held[owner] += 1
        try:
            yield
        finally:
            self._held[owner] -= 1
            if not self._held[owner]:
                del self._held[owner]
            self._freed.set()
            self._freed = asyncio.Event()

    def _free(self, owner: str) -> bool:
        return self._held.total() < self._most and self._held[owner] < self._each
