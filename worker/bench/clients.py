"""Clients of something that answers single requests, and what they saw: answers, refusals and latencies.

It knows neither queue nor protocol: `Ask` sends one image and returns once it is answered.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from contract.errors import Expired, Overloaded

Ask: TypeAlias = Callable[[bytes], Awaitable[None]]
"""Sends an image and waits for its label. Raises Overloaded if it is refused, Expired if the answer is too late."""

_LONGEST_PAUSE = 0.05


@dataclass
class Seen:
    """What the clients of one run saw; all times are in seconds, on this process' clock."""

    began: float = 0.0
    ended: float = 0.0
    """When the run was over; an answer after it is no part of the rate."""
    sent: int = 0
    expired: int = 0
    answers: list[tuple[float, float]] = field(default_factory=list)
    """When each answered request was sent, and when the answer was there."""
    refusals: list[float] = field(default_factory=list)
    """How long each refused request waited for the refusal."""

    @property
    def rate(self) -> float:
        """Answers per second of the run."""
        seconds = self.ended - self.began
        return sum(at <= self.ended for _, at in self.answers) / seconds if seconds > 0 else 0.0

    @property
    def latencies(self) -> list[float]:
        return [at - sent for sent, at in self.answers]

    def within(self, began: float, ended: float) -> Seen:
        """Return the answers to requests that were sent and answered in this span."""
        found = [(sent, at) for sent, at in self.answers if began <= sent and at <= ended]
        return Seen(began, ended, len(found), answers=found)

    async def ask(self, ask: Ask, image: bytes) -> None:
        """Send one image and note how it ended; any other error than Overloaded and Expired is raised."""
        self.sent += 1
        sent = time.perf_counter()
        try:
            await ask(image)
        except Overloaded:
            self.refusals.append(time.perf_counter() - sent)
        except Expired:
            self.expired += 1
        else:
            self.answers.append((sent, time.perf_counter()))


@asynccontextmanager
async def tasks() -> AsyncIterator[asyncio.TaskGroup]:
    """Run tasks until all have ended; the first error ends the others, and is raised itself."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None


async def closed(
    ask: Ask,
    images: Sequence[bytes],
    clients: int,
    *,
    seconds: float = math.inf,
    until: Callable[[], bool] = lambda: False,
) -> Seen:
    """Have `clients` each send the next image once the last one is answered, for so long or until `until` is True."""
    seen = Seen(began=time.perf_counter())

    async def client(place: int) -> None:
        while time.perf_counter() - seen.began < seconds and not until():
            await seen.ask(ask, images[place % len(images)])
            place += clients

    async with tasks() as group:
        for place in range(clients):
            group.create_task(client(place))
    seen.ended = time.perf_counter()
    return seen


async def offered(ask: Ask, images: Sequence[bytes], rate: float, seconds: float) -> Seen:
    """Send `rate` images a second for so long, whatever becomes of them, then wait for the answers that are left.

    A client that is too slow for that sends what it can: `sent` says how many it were.
    """
    seen = Seen(began=time.perf_counter())
    begun = 0
    async with tasks() as group:
        while (passed := time.perf_counter() - seen.began) < seconds:
            # At most a tenth of a second's worth at once: after a stall the loop must come to read answers.
            for _ in range(min(int(passed * rate) + 1 - begun, math.ceil(rate / 10))):
                group.create_task(seen.ask(ask, images[begun % len(images)]))
                begun += 1
            await asyncio.sleep(min(1 / rate, _LONGEST_PAUSE))
        seen.ended = seen.began + seconds
    return seen


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of all does not exceed, or nan of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def spread(latencies: Sequence[float]) -> dict[str, float | None]:
    """Return the median and the 99th percentile of some seconds, in ms; None if there are none."""
    if not latencies:
        return {"p50_ms": None, "p99_ms": None}
    return {
        "p50_ms": round(1000 * statistics.median(latencies), 2),
        "p99_ms": round(1000 * percentile(latencies, 0.99), 2),
    }
