"""Which requests go to Redis in one step, and what becomes of those that are under way when it is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
import redis.asyncio

from contract.keys.online import OnlineKeys
from contract.online import admission as admission_module
from contract.online.admission import Admission
from contract.online.messages import RequestId

MiB = 2**20


class Server:
    """Notes what it is asked for in each step, and answers with the place of a request in it unless told otherwise."""

    def __init__(self) -> None:
        self.steps: list[list[str]] = []
        self.error: Exception | None = None
        self.says: Callable[[int], list[Any]] = lambda place: [place]
        self.withdrawn: list[str] = []
        self.go: asyncio.Event | None = None
        """What the next answers wait for."""

    def register_script(self, source: str) -> Callable[..., Awaitable[Any]]:
        return self._run if "XADD" in source else self._end

    async def _end(self, keys: list[str], arguments: list[Any]) -> None:
        assert keys[2].endswith(arguments[0])
        self.withdrawn += arguments

    async def _run(self, keys: list[str], arguments: list[Any]) -> list[list[Any]]:
        ids = arguments[3::6]
        assert len(keys) == 2 + 3 * len(ids) and len(arguments) == 3 + 6 * len(ids)
        self.steps.append(ids)
        if self.error:
            raise self.error
        if self.go:
            await self.go.wait()
        return [self.says(place) for place in range(len(ids))]


class Clock:
    """Stands still unless it is moved."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


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
    async def main() -> list[Any]:
        server.go = asyncio.Event()
        asking = admission(server)
        tasks = [asyncio.create_task(asking.ask(id, b"x", 1000)) for id in ids(2)]
        while not server.steps:
            await asyncio.sleep(0)
        await asking.aclose()
        return list(await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30))

    assert [type(error) for error in asyncio.run(main())] == [redis.ConnectionError] * 2


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_closing_before_anything_is_sent_tells_them_too(server: Server, steps: int) -> None:
    async def main() -> list[Any]:
        server.go = asyncio.Event()
        asking = admission(server)
        (one,) = ids(1)
        task = asyncio.create_task(asking.ask(one, b"x", 1000))
        for _ in range(steps):
            await asyncio.sleep(0)
        await asking.aclose()
        return list(await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 30))

    assert [type(error) for error in asyncio.run(main())] == [redis.ConnectionError]


@pytest.mark.parametrize(("said", "withdrawn"), [(b"taken", 1), (b"late", 0), (b"none", 0)])
def test_who_goes_while_a_request_is_admitted_leaves_none_behind(server: Server, said: bytes, withdrawn: int) -> None:
    """The withdrawal of whoever asked goes on another connection, and may come before what it ends."""
    server.says = lambda place: [said, 1]
    gone, left = ids(2)

    async def main() -> Any:
        server.go = asyncio.Event()
        asking = admission(server)
        tasks = [asyncio.create_task(asking.ask(id, b"x", 1000)) for id in (gone, left)]
        while not server.steps:
            await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.sleep(0)
        server.go.set()
        answer = await tasks[1]
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)
        return answer

    assert asyncio.run(main()) == [said, 1]
    assert server.withdrawn == [str(gone)] * withdrawn


def test_the_refusal_of_a_late_request_stands_for_others_like_it(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(admission_module, "time", clock)
    server.says = lambda place: [b"late", 350]
    four = RequestId.new(4, 1, "birds@1")

    async def main() -> None:
        asking = admission(server)
        assert asking.late("birds@1", 4, 1000) is None  # nobody has asked yet
        await asking.ask(four, b"x", 1000)
        assert asking.late("birds@1", 4, 1000) == asking.late("birds@1", 9, 10) == [b"late", 350]
        # One with fewer images or more time may be admitted, and so may one for another model.
        assert asking.late("birds@1", 3, 1000) is None
        assert asking.late("birds@1", 4, 1030) is None
        assert asking.late("owls@1", 4, 1000) is None
        clock.now += 0.019
        assert asking.late("birds@1", 4, 1000)
        # Then one finds out whether it is so still, and the others are refused until it knows.
        clock.now += 0.002
        assert asking.late("birds@1", 4, 1000) is None
        assert asking.late("birds@1", 4, 1000)
        await asking.ask(four, b"x", 1000)
        clock.now += 0.019
        assert asking.late("birds@1", 4, 1000)
        # One that has longer is no measure; one that has not, and is taken, is.
        server.says = lambda place: [b"taken"]
        await asking.ask(four, b"x", 5000)
        assert asking.late("birds@1", 4, 1000)
        await asking.ask(four, b"x", 1000)
        assert asking.late("birds@1", 4, 1000) is None
        assert asking.late("birds@1", 4, 1000) is None
        # However long the deadline is, a refusal stands for at most 50 ms.
        server.says = lambda place: [b"late", 350]
        await asking.ask(four, b"x", 60_000)
        clock.now += 0.049
        assert asking.late("birds@1", 4, 60_000)
        clock.now += 0.002
        assert asking.late("birds@1", 4, 60_000) is None

    asyncio.run(main())


@pytest.mark.parametrize("said", [b"taken", b"none", b"full"])
def test_no_other_answer_stands(server: Server, said: bytes) -> None:
    server.says = lambda place: [said, 350]

    async def main() -> None:
        asking = admission(server)
        await asking.ask(ids(1)[0], b"x", 1000)
        assert asking.late("birds@1", 1, 1000) is None

    asyncio.run(main())
