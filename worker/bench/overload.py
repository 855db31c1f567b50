"""Measures what becomes of three times as many requests as can be answered."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from contract.online.connection import connect, need_address
from contract.online.messages import DEADLINE_SECONDS
from contract.settings import Settings
from worker.bench.clients import Ask, Seen, closed, offered, spread
from worker.bench.cpu import resident
from worker.bench.stack import say

TIMES = 3.0
"""Requests that are offered, in multiples of the best rate."""
_DEADLINES = 6
"""Deadlines in a run, at least: the queue fills within the first, and the rest is the overload proper."""


def measure(
    opened: Callable[[float], AbstractAsyncContextManager[Ask]],
    images: Sequence[bytes],
    best: float,
    seconds: float,
    memory: Callable[[], Mapping[str, float]],
) -> dict[str, Any]:
    """Offer three times `best` images a second, and return what was answered, what was refused, and the memory in MB.

    `opened` makes a connection whose requests have so many seconds. Memory is read before, every second, and after.
    """
    deadline = deadline_of(seconds)
    say(f"overload: {TIMES * best:,.0f} requests a second for {seconds:g} s, each with {deadline:.3g} s …")
    before = memory()
    seen, during = asyncio.run(_run(opened, images, TIMES * best, seconds, deadline, memory))
    after = memory()
    return {
        "seconds": seconds,
        "deadline_seconds": round(deadline, 3),
        "best": round(best, 1),
        "offered": round(TIMES * best, 1),
        "sent": round(seen.sent / seconds, 1),
        "goodput": round(seen.rate, 1),
        "of_best": round(seen.rate / best, 3),
        "admitted": spread(seen.latencies),
        "refused": len(seen.refusals),
        "refusal": spread(seen.refusals),
        "expired": seen.expired,
        "memory_mb": {name: course(name, before, during, after) for name in before},
    }


def deadline_of(seconds: float) -> float:
    """Return the deadline of requests in a run of so many seconds."""
    return min(DEADLINE_SECONDS, seconds / _DEADLINES)


async def _run(
    opened: Callable[[float], AbstractAsyncContextManager[Ask]],
    images: Sequence[bytes],
    rate: float,
    seconds: float,
    deadline: float,
    memory: Callable[[], Mapping[str, float]],
) -> tuple[Seen, list[Mapping[str, float]]]:
    during: list[Mapping[str, float]] = []

    async def watch() -> None:
        while True:
            during.append(await asyncio.to_thread(memory))
            await asyncio.sleep(1)

    async with opened(deadline) as ask:
        await closed(ask, images, 1, seconds=0.2)
        watching = asyncio.create_task(watch())
        try:
            seen = await offered(ask, images, rate, seconds)
        finally:
            watching.cancel()
    return seen, during[: math.ceil(seconds)]  # later ones are of the answers that were left


def course(
    name: str, before: Mapping[str, float], during: Sequence[Mapping[str, float]], after: Mapping[str, float]
) -> dict[str, float]:
    """Return a memory before, its most in each half of the run, and after it. A leak shows in the second half."""
    middle = len(during) // 2
    halves = during[:middle] or during, during[middle:]
    first, second = (max((said[name] for said in half), default=before[name]) for half in halves)
    return {"before": before[name], "first_half": first, "second_half": second, "after": after[name]}


def memory(settings: Settings, supervisor: int) -> dict[str, float]:
    """Return the MB that the online Redis has of the system, and those of the worker with its children."""
    client = connect(need_address(settings), connections=1)
    try:
        redis = int(client.info("memory")["used_memory_rss"])
    finally:
        client.close()
    return {"online_redis": round(redis / 1e6, 1), "worker": round(resident(supervisor).get("worker", 0.0) / 1e6, 1)}
