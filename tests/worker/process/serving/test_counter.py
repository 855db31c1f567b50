"""One model served by processes of a test, on a real Redis: replies, faults that are passed on, connections that break.

The engine labels by the length of a file; the model raises on what begins with `!`.
"""

from __future__ import annotations

import threading
from collections import Counter as Counts
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, cast

import pytest
import redis

from contract.errors import DeviceOutOfMemory
from contract.online.messages import Generate, RequestId, write_reply, write_request
from contract.online.state import WorkerSays
from contract.telemetry import meters
from tests.parity import MODEL
from tests.waiting import wait_until
from tests.worker.process.serving.conftest import ASKER, LONG_MS, Asker, MakeInbox
from worker.engine import canary
from worker.engine.pipeline import Encoded, Labelled, Result
from worker.execution.health import Health
from worker.process.serving.counter import Counter
from worker.process.serving.inbox import Inbox
from worker.process.serving.labels import Labels


class Engine:
    """Labels at once, by the parity of the length."""

    def __init__(self) -> None:
        self.error: Exception = RuntimeError("a kernel has failed")
        self.sick = False
        self.seen = Counts[bytes]()
        self.holds = False
        self.held: list[tuple[Future[list[Result]], list[bytes]]] = []
        """What is under way, if it `holds` what it is given."""

    def submit(
        self, items: Sequence[Encoded], *, top_k: int = 5, features: bool = False, first: bool = False
    ) -> Future[list[Result]]:
        future: Future[list[Result]] = Future()
        files = cast("list[bytes]", list(items))
        self.seen.update(files)
        if self.holds:
            self.held.append((future, files))
        elif self.sick or any(file.startswith(b"!") for file in files):
            future.set_exception(self.error)
        else:
            future.set_result(_labelled(files))
        return future

    def end(self) -> None:
        """Finish what is held, and hold nothing more."""
        self.holds = False
        for future, files in self.held:
            future.set_result(_labelled(files))


def _labelled(files: Sequence[bytes]) -> list[Result]:
    return [Labelled((len(file) % 2, 1 - len(file) % 2), (0.75, 0.25), 1, 1, "0" * 64) for file in files]


class Worker:
    """A process that serves the model."""

    def __init__(self, inbox: Inbox, name: str, device: str = "cpu") -> None:
        self.inbox, self.engine, self.left = inbox, Engine(), list[str]()
        self.resources = SimpleNamespace(
            name=name, leaving=threading.Event(), health=Health(self._test, lambda why: self.left.append(why))
        )
        loaded = SimpleNamespace(runtime=SimpleNamespace(batch_size=8, lanes=1, device=device), engine=self.engine)
        self.counter = Counter(cast("Any", self.resources), inbox, Labels(MODEL, cast("Any", loaded)))
        self.started = False

    def _test(self) -> None:
        if self.engine.sick:
            raise self.engine.error

    def start(self) -> None:
        self.counter.start()
        self.started = True
        self.counter.beat()

    def stay(self) -> None:
        """Say that this process is there, as one that goes on to do so."""
        self.inbox.say(WorkerSays(at_ms=self.inbox.living()[0] + LONG_MS, rate=1.0, worker=self.resources.name))

    def says(self) -> WorkerSays:
        """Return what this process says of itself now."""

        def said() -> WorkerSays | None:
            self.counter.beat()
            return self.inbox.living()[1].get(self.resources.name)

        return wait_until(said, 20, "a heartbeat that is read before it is old")

    def beaten(self, until: Callable[[], object], what: str) -> None:
        """Beat until something is so."""

        def beat() -> object:
            self.counter.beat()
            return until()

        wait_until(beat, 20, what)


class Metrics:
    """Counts of requests by outcome, and of observations by stage."""

    def __init__(self) -> None:
        self.outcomes, self.stages = Counts[str](), Counts[str]()

    def add(self, instrument: meters.Counter, value: float, labels: tuple[str, ...]) -> None:
        if instrument.name == "imagemill_online_requests_total":
            self.outcomes[labels[0]] += int(value)

    def set(self, instrument: meters.Gauge, value: float, labels: tuple[str, ...]) -> None:
        """Leave gauges out."""

    def observe(self, instrument: meters.Histogram, value: float, labels: tuple[str, ...]) -> None:
        if instrument.name == "imagemill_online_seconds":
            assert value >= 0
            self.stages[labels[0]] += 1


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    recorder = Metrics()
    meters.record_with(recorder)
    yield recorder
    meters.record_with(None)


@pytest.fixture
def worker(inbox_of: MakeInbox) -> Iterator[Callable[[str], Worker]]:
    """Makes workers by name, and stops those that were started."""
    with ExitStack() as made:

        def make(name: str, inbox: Inbox | None = None, **options: str) -> Worker:
            one = Worker(inbox or inbox_of(name), name, **options)
            made.callback(lambda: one.counter.stop(20) if one.started else None)
            return one

        yield make


Make = Callable[..., Worker]


def test_each_request_has_its_rows(asker: Asker, worker: Make, metrics: Metrics) -> None:
    ids = [asker.ask(b"x" * n, b"x") for n in range(1, 21)]
    one = worker("w1")
    one.start()
    replies = {reply.id: reply for reply in (asker.reply() for _ in ids)}
    for n, id in enumerate(ids, 1):
        rows = replies[str(id)].rows
        assert [row["label"] for row in rows] == [("even", "odd")[n % 2], "odd"]
        assert [row["key"] for row in rows] == ["0", "1"]
        assert [len(row["top_k"]) for row in rows] == [1, 1], "as many as were asked for"
    one.counter.stop(20)
    assert (asker.pending(), asker.left()) == ({}, 0)
    assert metrics.outcomes == {"done": 20}
    assert (
        metrics.stages["wait"] == metrics.stages["compute"] == metrics.stages["reply"] == 20 and metrics.stages["fetch"]
    )


def test_what_it_says_of_itself(worker: Make) -> None:
    one = worker("w1")
    one.start()
    says = one.says()
    assert says.rate > 0 and says.worker == "w1"
    # One that is about to leave says that it takes nothing.
    one.resources.leaving.set()
    assert one.says().rate == 0


def test_an_image_that_raises_in_two_processes_is_a_row(asker: Asker, worker: Make, metrics: Metrics) -> None:
    # Given two workers, and a request with an image on which the model raises beside one on which it does not,
    one, two = worker("w1"), worker("w2")
    two.stay()
    one.start()
    good = asker.ask(b"x")
    asker.ask(b"x", b"!")
    # I expect the first to answer what is good, and to pass the other on,
    assert asker.reply().id == str(good)
    wait_until(lambda: metrics.outcomes["passed_on"] == 1, 20, "the request to be passed on")
    # and the second to blame the one image.
    two.start()
    two.beaten(lambda: metrics.outcomes["done"] == 2, "the second worker to answer")
    reply = asker.reply()
    assert (reply.outcome, [row["status"] for row in reply.rows]) == ("done", ["ok", "error"])
    assert reply.rows[1]["error_code"] == "inference_failed"
    assert "2 processes" in reply.rows[1]["error_message"] and "a kernel has failed" in reply.rows[1]["error_message"]
    assert (asker.pending(), asker.left()) == ({}, 0)
    assert not one.left and not two.left


def test_without_another_worker_the_request_fails(asker: Asker, worker: Make, metrics: Metrics) -> None:
    worker("w1").start()
    asker.ask(b"!")
    reply = asker.reply()
    assert reply.outcome == "failed" and "no other worker is there" in reply.says
    wait_until(lambda: metrics.outcomes == {"failed": 1}, 20, "the metrics")


def test_a_device_without_memory_blames_nobody(asker: Asker, worker: Make) -> None:
    one = worker("w1")
    one.engine.error = DeviceOutOfMemory("The device has no memory left.")
    one.start()
    asker.ask(b"!")
    reply = asker.reply()
    assert (reply.outcome, reply.says) == ("failed", "The device has no memory left.")


def test_a_worker_that_is_unfit_leaves_its_requests_to_another(asker: Asker, worker: Make, metrics: Metrics) -> None:
    # Given a worker whose device breaks,
    one, two = worker("w1"), worker("w2")
    one.start()
    one.engine.sick = True
    asker.ask(b"x")
    # I expect it to leave, and another worker to answer what it had, although the first still beats.
    wait_until(lambda: one.left, 20, "the worker to leave")
    assert one.says().rate == 0
    two.start()
    two.beaten(lambda: metrics.outcomes["done"] == 1, "the other worker to answer")
    assert asker.reply().rows[0]["label"] == "odd"
    assert metrics.outcomes == {"done": 1}


def test_a_request_with_which_two_processes_died_is_given_up(asker: Asker, worker: Make, inbox_of: MakeInbox) -> None:
    id = asker.ask(b"x")
    wait_until(lambda: inbox_of("dead-1").take(1, 50), 20, "the first")
    wait_until(lambda: inbox_of("dead-2").claim(), 20, "the second")
    one = worker("w1")
    one.start()
    one.beaten(lambda: not asker.left(), "an answer")
    reply = asker.reply()
    assert (reply.id, reply.outcome) == (str(id), "failed") and "2 workers ended" in reply.says


def test_what_cannot_be_answered_is_taken_off_the_stream(asker: Asker, worker: Make, metrics: Metrics) -> None:
    # Given a request that expired, one that is no request, and one that asks a classifier for images
    expired, garbage, generate = (asker.ask(b"x") for _ in range(3))
    names = asker.keys
    asker.redis.delete(names.payload(str(expired)))
    asker.redis.set(names.payload(str(garbage)), b"garbage")
    asker.redis.set(names.payload(str(generate)), write_request(Generate(reply_to=ASKER)))
    worker("w1").start()
    reply = asker.reply()
    assert (reply.id, reply.outcome) == (str(generate), "refused")
    wait_until(lambda: not asker.left(), 20, "the stream to be empty")
    wait_until(lambda: metrics.outcomes == {"expired": 1, "malformed": 1, "refused": 1}, 20, "the metrics")


class BreakingInbox(Inbox):
    """Loses its connection at the first call of some methods, before or after Redis has done what they ask."""

    def __init__(self, good: Inbox, *breaks: str) -> None:
        self.__dict__.update(good.__dict__)
        self._breaks = set(breaks)

    def _break(self, name: str) -> None:
        if name in self._breaks:
            self._breaks.remove(name)
            raise redis.ConnectionError("lost")

    def payloads(self, taken: Any) -> Any:
        self._break("payloads")
        return super().payloads(taken)

    def reply(self, answered: Any) -> list[bool]:
        self._break("reply")
        found = super().reply(answered)
        self._break("replied")
        return found


class NotingInbox(Inbox):
    """Notes how many requests are answered in each step."""

    def __init__(self, good: Inbox) -> None:
        self.__dict__.update(good.__dict__)
        self.steps: list[int] = []

    def reply(self, answered: Any) -> list[bool]:
        self.steps.append(len(answered))
        return super().reply(answered)


def test_a_batch_is_answered_in_one_step_unless_its_replies_are_large(
    asker: Asker, worker: Make, inbox_of: MakeInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = NotingInbox(inbox_of("w1"))
    ids = [asker.ask(b"x") for _ in range(8)]
    one = worker("w1", inbox, device="cuda:0")
    one.start()
    size = max(len(write_reply(asker.reply())) for _ in ids)
    assert inbox.steps == [8]

    # Given replies of which two and a half may go together, I expect three, three and two.
    monkeypatch.setattr("worker.process.serving.counter._REPLY_BYTES", int(2.5 * size))
    one.counter.stop(20)
    inbox.steps.clear()
    ids = [asker.ask(b"x") for _ in range(8)]
    worker("w1", inbox, device="cuda:0").start()
    assert sorted(asker.reply().id for _ in ids) == sorted(str(id) for id in ids)
    assert inbox.steps == [3, 3, 2]


@pytest.mark.parametrize(("device", "groups"), [("cpu", [4, 4, 8]), ("cuda:0", [8, 8, 4])])
def test_few_requests_are_spread_over_the_cores_and_many_are_not(
    asker: Asker, worker: Make, device: str, groups: list[int]
) -> None:
    # Given a worker that has three lanes, takes eight requests at once, and ends none,
    ids = [asker.ask(b"x") for _ in range(20)]
    one = worker("w1", device=device)
    one.engine.holds = True
    one.start()
    # I expect the first eight in two groups on a CPU, and the next ones, for which there is one lane left, in one.
    wait_until(lambda: len(one.engine.held) == 3, 20, "as many groups as there are lanes")
    assert [len(files) for _, files in one.engine.held] == groups
    one.engine.end()
    assert sorted(asker.reply().id for _ in ids) == sorted(str(id) for id in ids)


@pytest.mark.parametrize("breaks", ["payloads", "reply", "replied"])
def test_a_connection_that_breaks_costs_no_request(
    asker: Asker, worker: Make, inbox_of: MakeInbox, breaks: str
) -> None:
    ids = [asker.ask(b"x" * n) for n in range(1, 31)]
    one = worker("w1", BreakingInbox(inbox_of("w1"), breaks))
    one.start()
    replies = [asker.reply().id for _ in ids]
    assert sorted(replies) == sorted(str(id) for id in ids)
    one.counter.stop(20)
    assert (asker.pending(), asker.left()) == ({}, 0)


def test_larger_requests_go_in_groups_and_each_is_answered(asker: Asker, worker: Make) -> None:
    ids = [asker.ask(bytes(9 * 2**20)) for _ in range(6)]
    one = worker("w1")
    one.start()
    assert sorted(asker.reply().id for _ in ids) == sorted(str(id) for id in ids)


def test_known_good_images_are_labelled_at_the_start(worker: Make) -> None:
    assert set(worker("w1").engine.seen) == set(canary.files())


def test_says_are_read_from_what_is_written() -> None:
    says = WorkerSays(at_ms=1, rate=2.5, worker="w", images_per_second=3.0, p50_ms=4.0, p99_ms=5.0)
    assert WorkerSays.parse(says.field()) == says
    for garbage in ("", "1 2", "x 1 {}", "1 -1 {}", '1 1 {"at_ms": 2}', "1 1 []", "1 1 " + "[" * 100_000):
        assert WorkerSays.parse(garbage) is None
    assert RequestId.parse("") is None
