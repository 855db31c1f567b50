"""Places for long requests: no owner holds all of them, and nobody waits for one for long."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from contract.errors import Overloaded
from producer.web.places import Places


def test_an_owner_leaves_places_to_others_and_who_finds_none_is_told_when_to_come_back() -> None:
    async def play() -> None:
        places = Places("pushed models", most=4, each=2, seconds=0.05)
        async with AsyncExitStack() as held:
            # Given an owner with two of four places,
            for _ in range(2):
                await held.enter_async_context(places.taken("ann"))
            # if she asks for a third, I expect a refusal, and a place for others until there is none.
            with pytest.raises(Overloaded, match="'ann' has as many pushed models") as told:
                await held.enter_async_context(places.taken("ann"))
            assert told.value.retry_after > 0
            for owner in ("bob", "eve"):
                await held.enter_async_context(places.taken(owner))
            with pytest.raises(Overloaded, match="This server has"):
                await held.enter_async_context(places.taken("joe"))
        async with places.taken("ann"), places.taken("ann"), places.taken("bob"), places.taken("bob"):
            pass

    asyncio.run(play())


def test_a_place_that_is_freed_goes_to_who_waits() -> None:
    async def play() -> list[str]:
        places, order = Places("pushed models", most=1, each=1, seconds=60), list[str]()

        async def second() -> None:
            async with places.taken("bob"):
                order.append("bob")

        async with places.taken("ann"):
            waits = asyncio.create_task(second())
            await asyncio.sleep(0)
            order.append("ann")
        await waits
        return order

    assert asyncio.run(play()) == ["ann", "bob"]
