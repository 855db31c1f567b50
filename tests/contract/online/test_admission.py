"""Which requests go to Redis in one step, and what becomes of those that are under way when it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
import redis.asyncio

from contract.keys.online import OnlineKeys
from contract.online.admission import Admission
from contract.online.messages import RequestId

MiB = 2**20


class Server:
    """Notes what it is asked for in each step, and answers with the place of a request in it."""

    def __init__(self) -> None:
        self.steps: list[list[str]] = []
        self.error: Exception | None = None
        self.silent = False

    def register_script(self, source: str) -> Callable[..., Awaitable[list[list[Any]]]]:
        assert "XADD" in source
        return self._run

    async def _run(self, keys: list[str], arguments: list[Any]) -> list[list[Any]]:
        ids = arguments[3::6]
        assert len(keys) == 2 + 3 * len(ids) and len(arguments) == 3 + 6 * len(ids)
        self.steps.append(ids)
        if self.error:
            raise self.error
        if self.silent:
            await asyncio.Event().wait()
        return [[place] for place in range(len(ids))]


@pytest.fixture
def server() -> Server:
    return Server()


def admission(server: Server) -> Admission:
    return Admission(cast("redis.asyncio.Redis", server), OnlineKeys("test"))


def ids(count: int, model: str = "birds@1") -> list[RequestId]:
    return [RequestId.new(1, 1, model) for _ in range(count)]


def test_what_is_asked_for_at_once_goes_in_one_step(server: Server) -> None:
    wanted = ids(5)

    async def main() -> list[list[Any]]:
        asking = admission(server)
        return list(await asyncio.gather(*(asking.ask(id, b"x", 1000) for id in wanted)))

    assert asyncio.run(main()) == [[0], [1], [2], [3], [4]]
    assert server.steps == [[str(id) for id in wanted]]


def test_large_requests_and_other_models_go_by_themselves(server: Server) -> None:
    wanted, owls = ids(5), ids(2, "owls@1")
    sizes = (MiB // 2, MiB // 2, 1, 5 * MiB, 1)

    async def main() -> None:
        asking = admission(server)
        birds = [asking.ask(id, bytes(size), 1000) for id, size in zip(wanted, sizes, strict=True)]
        await asyncio.gather(asking.ask(owls[0], b"x", 1000), *birds, asking.ask(owls[1], b"x", 1000))

    asyncio.run(main())
    names = [str(id) for id in wanted]
    assert sorted(server.steps) == sorted([[str(id) for id in owls], names[:2], [names[2]], [names[3]], [names[4]]])


def test_who_is_gone_before_the_step_is_not_asked_for(server: Server) -> None:
    gone, left = ids(2)

    async def main() -> list[Any]:
        asking = admission(server)
        tasks = [asyncio.create_task(asking.ask(id, b"x", 1000)) for id in (gone, left)]
        await asyncio.sleep(0)  # both have asked, and nothing was sent
        tasks[0].cancel()
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    cancelled, answer = asyncio.run(main())
    assert isinstance(cancelled, asyncio.CancelledError) and answer == [0]
    assert server.steps == [[str(left)]]


def test_a_lost_connection_is_told_to_each(server: Server) -> None:
    server.error = redis.ConnectionError("lost")

    async def main() -> list[Any]:
        asking = admission(server)
        found = await asyncio.gather(*(asking.ask(id, b"x", 1000) for id in ids(3)), return_exceptions=True)
        server.error = None
        return [*found, await asking.ask(ids(1)[0], b"x", 1000)]

    *lost, again = asyncio.run(main())
    assert [str(error) for error in lost] == ["lost"] * 3
    assert again == [0]


def test_closing_tells_those_who_wait(server: Server) -> None:
    server.silent = True

    async def main() -> list[Any]:
        asking = admission(server)
        tasks = [asyncio.create_task(asking.ask(id, b"x", 1000)) for id in ids(2)]
        while not server.steps:
            await asyncio.sleep(0)
        await asking.aclose()
        return list(await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30))

    assert [type(error) for error in asyncio.run(main())] == [redis.ConnectionError] * 2


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_closing_before_anything_is_sent_tells_them_too(server: Server, steps: int) -> None:
    server.silent = True

    async def main() -> list[Any]:
        asking = admission(server)
        (one,) = ids(1)
        task = asyncio.create_task(asking.ask(one, b"x", 1000))
        for _ in range(steps):
            await asyncio.sleep(0)
        await asking.aclose()
        return list(await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 30))

    assert [type(error) for error in asyncio.run(main())] == [redis.ConnectionError]
