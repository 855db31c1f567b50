"""An overload is three times the best rate; what it says of answers, refusals and memory is what was there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count

import pytest

from contract.errors import Overloaded
from worker.bench import overload
from worker.bench.clients import Ask


def test_what_cannot_be_answered_is_refused_and_counted() -> None:
    # Given a server that answers every third request and refuses the others,
    asked, deadlines, read = count(), [], count(100)

    @asynccontextmanager
    async def opened(deadline: float) -> AsyncIterator[Ask]:
        deadlines.append(deadline)

        async def ask(image: bytes) -> None:
            await asyncio.sleep(0)
            if next(asked) % 3:
                raise Overloaded("full", retry_after=1.0)

        yield ask

    # if I offer it three times ten a second for a second and a half,
    found = overload.measure(opened, [b"jpeg"], 10.0, 1.5, lambda: {"worker": float(next(read))})

    # I expect deadlines of which six fit into the run, and each request under its end.
    assert deadlines == [0.25]
    assert found["offered"] == 30.0
    assert 0 < found["sent"] <= 31
    sent = round(found["sent"] * 1.5)
    assert found["refused"] + round(found["goodput"] * 1.5) <= sent
    assert abs(found["refused"] - 2 / 3 * sent) <= 1
    assert found["of_best"] == round(found["goodput"] / 10, 3)
    assert found["expired"] == 0

    # The memory was read before, meanwhile and after, in this order.
    memory = found["memory_mb"]["worker"]
    assert memory["before"] == 100.0
    assert memory["before"] < memory["first_half"] <= memory["second_half"] < memory["after"]


def test_a_minute_has_the_usual_deadline() -> None:
    assert overload.deadline_of(60.0) == 10.0
    assert overload.deadline_of(600.0) == 10.0
    assert overload.deadline_of(3.0) == 0.5


@pytest.mark.parametrize(
    ("during", "first", "second"),
    [([], 5.0, 5.0), ([7.0], 7.0, 7.0), ([6.0, 9.0, 8.0, 7.0], 9.0, 8.0), ([6.0, 7.0, 8.0, 9.0, 10.0], 7.0, 10.0)],
)
def test_a_leak_shows_in_the_second_half(during: list[float], first: float, second: float) -> None:
    found = overload.course("redis", {"redis": 5.0}, [{"redis": mb} for mb in during], {"redis": 6.0})
    assert found == {"before": 5.0, "first_half": first, "second_half": second, "after": 6.0}
