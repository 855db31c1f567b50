"""Clients of a bench ask as often as they say, and count what they saw."""

from __future__ import annotations

import asyncio
import math

import pytest

from contract.errors import Expired, OnlineFailed, Overloaded
from worker.bench.clients import Seen, closed, offered, percentile, spread

IMAGES = [b"first", b"second", b"third"]


class Server:
    """Answers every image, or ends each as it is told; it knows how many wait at a time."""

    def __init__(self, *ends: Exception | None) -> None:
        self.ends = list(ends)
        self.got: list[bytes] = []
        self.waiting = self.most = 0

    async def __call__(self, image: bytes) -> None:
        self.got.append(image)
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        await asyncio.sleep(0)
        self.waiting -= 1
        if self.ends and (end := self.ends.pop(0)) is not None:
            raise end


def run_until(server: Server, requests: int, clients: int) -> Seen:
    return asyncio.run(closed(server, IMAGES, clients, until=lambda: len(server.got) >= requests))


def test_each_client_waits_for_its_answer_before_it_asks_again() -> None:
    # Given four clients of a server that answers, I expect never more than four requests at a time,
    server = Server()
    seen = run_until(server, 40, clients=4)
    assert server.most == 4

    # an answer to each, over all images in turn.
    assert seen.sent == len(seen.answers) == len(server.got) == 40
    assert set(server.got) == set(IMAGES)
    assert seen.began <= min(sent for sent, _ in seen.answers)
    assert all(sent <= at <= seen.ended for sent, at in seen.answers)


def test_what_is_refused_or_late_is_no_answer() -> None:
    # Given a server that refuses one request and is too late for another,
    server = Server(Overloaded("full", retry_after=1.0), None, Expired("late"))

    # I expect both to be counted apart, and the clients to go on.
    seen = run_until(server, 10, clients=1)
    assert (seen.sent, len(seen.answers), len(seen.refusals), seen.expired) == (10, 8, 1, 1)
    assert len(seen.latencies) == 8


def test_a_request_that_fails_ends_the_run() -> None:
    # Given a request that no overload explains, I expect its error: a bench that goes on would measure nothing.
    with pytest.raises(OnlineFailed, match="broken"):
        run_until(Server(None, OnlineFailed("broken")), 10, clients=3)


class Clock:
    """Stands for the module `time`: each look at it takes a millisecond, and what is added to `now`."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("worker.bench.clients.time", clock)
    return clock


def test_requests_are_offered_whether_or_not_they_are_answered(clock: Clock) -> None:
    # Given a server that answers nothing before the run is over,
    async def late(image: bytes) -> None:
        while clock.now < 0.1:
            await asyncio.sleep(0)

    # if 1,000 a second are offered for a tenth of a second, I expect all of them to be sent and waited for, and a rate
    # of nothing.
    seen = asyncio.run(offered(late, IMAGES, 1000, 0.1))
    assert 80 < seen.sent <= 101
    assert len(seen.answers) == seen.sent
    assert seen.rate == 0
    assert seen.ended - seen.began == pytest.approx(0.1)


def test_a_stall_is_made_up_for_in_pieces(clock: Clock) -> None:
    # Given a client that does nothing for half a second after its tenth request,
    server = Server()

    async def stalls(image: bytes) -> None:
        await server(image)
        if len(server.got) == 10:
            clock.now += 0.5

    # I expect it to send what is due then, but never more at once than in a tenth of a second.
    seen = asyncio.run(offered(stalls, IMAGES, 100, 1.0))
    assert 80 < seen.sent <= 101
    assert server.most <= 10


def test_answers_after_the_end_are_no_part_of_the_rate() -> None:
    # Given ten seconds with answers at 1, 9 and 12, I expect two in ten seconds, and the latency of all three.
    seen = Seen(began=0.0, ended=10.0, sent=3, answers=[(0.5, 1.0), (8.0, 9.0), (9.5, 12.0)])
    assert seen.rate == pytest.approx(0.2)
    assert seen.latencies == pytest.approx([0.5, 1.0, 2.5])


def test_a_span_has_what_was_asked_and_answered_in_it() -> None:
    seen = Seen(began=0.0, ended=10.0, answers=[(0.5, 1.5), (2.0, 3.0), (4.0, 6.0)])
    within = seen.within(1.0, 5.0)
    assert within.answers == [(2.0, 3.0)]
    assert within.rate == pytest.approx(0.25)


def test_percentiles_are_of_the_values_themselves() -> None:
    hundred = [n / 1000 for n in range(100, 0, -1)]
    assert percentile(hundred, 0.99) == 0.099
    assert percentile(hundred, 1.0) == 0.1
    assert percentile([7.0], 0.5) == 7.0
    assert math.isnan(percentile([], 0.99))
    assert spread(hundred) == {"p50_ms": 50.5, "p99_ms": 99.0}
    assert spread([]) == {"p50_ms": None, "p99_ms": None}, "JSON has no nan"
