"""Asking: what is admitted, what is refused, and that each request has one reply. A test stands in for the worker."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Any

import pytest
import redis.asyncio

from contract.backend.objects import ObjectStore
from contract.backend.secret_url import SecretUrl
from contract.errors import (
    Expired,
    InvalidInput,
    NotServed,
    OnlineFailed,
    Overloaded,
    RedisUnavailable,
    RequestTooLarge,
    StoreUnavailable,
)
from contract.keys.online import OnlineKeys, served_record
from contract.online import exchange, messages
from contract.online.admission import Admission
from contract.online.ask import Online
from contract.online.connection import GROUP, _EndsUnwritable, connect, connect_async, need_address, script
from contract.online.exchange import Exchange
from contract.online.messages import Reply, RequestId
from contract.online.served import Served, ServedModels
from contract.online.state import WorkerSays, read_states
from contract.settings import Settings
from contract.telemetry import meters
from contract.telemetry.prometheus import Metrics
from tests import painter
from tests.scraped import Scraped

REF = "birds@1"


class Stand:
    """What a worker does, step by step."""

    def __init__(self, settings: Settings) -> None:
        self.keys = OnlineKeys(settings.namespace)
        self.redis = connect(need_address(settings))
        self._answer = self.redis.register_script(script("answer"))

    def ready(self, rate: float = 1000.0, *, ago: float = -600.0, process: str = "p1") -> None:
        """Say that a worker is ready, as one that goes on to say so does, or as one that said so some seconds ago."""
        seconds, micros = self.redis.time()
        at = seconds * 1000 + micros // 1000 - int(1000 * ago)
        self.redis.hset(self.keys.workers(REF), process, WorkerSays(at_ms=at, rate=rate, worker="w").field())

    def waiting(self) -> list[tuple[bytes, str]]:
        found: Any = self.redis.xrange(self.keys.requests(REF))
        return [(entry, fields[b"id"].decode()) for entry, fields in found]

    def answer(self, entry: bytes, id: str, *, outcome: Any = "done", says: str = "", images: int = 1) -> int:
        return self.answer_together([(entry, id)], outcome=outcome, says=says, images=images)

    def answer_together(
        self, entries: Sequence[tuple[bytes, str]], *, outcome: Any = "done", says: str = "", images: int = 1
    ) -> int:
        """Answer requests in one step; return how many of these replies were the first."""
        keys = [self.keys.open, self.keys.load, self.keys.requests(REF)]
        arguments: list[Any] = [GROUP, 10_000]
        for entry, id in entries:
            payload: Any = self.redis.get(self.keys.payload(id))
            request, _ = messages.read_request(payload)
            reply = Reply(id=id, outcome=outcome, says=says, rows=({"key": "0", "label": "owl"},) * images)
            keys += [self.keys.payload(id), self.keys.replies(request.reply_to)]
            arguments += [id, entry, messages.write_reply(reply)]
        found: Any = self._answer(keys, arguments)
        return sum(found)

    async def answer_all(self, count: int, **how: Any) -> None:
        for _ in range(count):
            while not (found := self.waiting()):
                await asyncio.sleep(0.005)
            assert self.answer(*found[0], **how) == 1

    def weight(self) -> dict[bytes, bytes]:
        found: Any = self.redis.hgetall(self.keys.load)
        return {name: value for name, value in found.items() if value != b"0"}


@pytest.fixture
def stand(settings: Settings, store: ObjectStore) -> Iterator[Stand]:
    record = Served(name="birds", version=1, task="classify", created_at="2026-11-26T00:00:00Z")
    store.put(served_record("birds", 1), record.to_json())
    made = Stand(settings)
    with closing(made.redis):
        yield made


@pytest.fixture
def asked(settings: Settings, store: ObjectStore) -> Callable[[Callable[[Online], Awaitable[Any]]], Any]:
    """Runs a coroutine with an asking side."""

    def run(work: Callable[[Online], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            async with Online(settings, store) as online:
                return await asyncio.wait_for(work(online), 30)

        return asyncio.run(main())

    return run


Asked = Callable[[Callable[[Online], Awaitable[Any]]], Any]


def test_a_request_has_its_reply_and_leaves_nothing_behind(stand: Stand, asked: Asked) -> None:
    stand.ready()

    async def work(online: Online) -> Any:
        answers = asyncio.gather(*(online.classify("birds", [b"x" * 100]) for _ in range(20)))
        await stand.answer_all(20)
        return await answers

    assert asked(work) == [[{"key": "0", "label": "owl"}]] * 20
    assert stand.waiting() == [] and stand.weight() == {}
    assert not stand.redis.keys(f"{stand.keys.payload('*')}")


def test_without_a_ready_worker_it_is_refused_at_once(stand: Stand, asked: Asked) -> None:
    for rate, ago in ((1000.0, 60.0), (0.0, -600.0)):
        stand.ready(rate, ago=ago)
        began = time.monotonic()
        with pytest.raises(Overloaded, match="No worker is ready for birds@1") as refused:
            asked(lambda online: online.classify(REF, [b"x"]))
        assert refused.value.retry_after > 0
        assert time.monotonic() - began < 5
    assert stand.waiting() == []


def test_what_would_come_too_late_is_refused_with_the_time_to_try_again(stand: Stand, asked: Asked) -> None:
    # Given a worker that does ten images a second, and twenty that wait
    stand.ready(rate=10.0)

    async def work(online: Online) -> Any:
        first = [asyncio.create_task(online.classify(REF, [b"x"] * 10, deadline=60)) for _ in range(2)]
        while len(stand.waiting()) < 2:
            await asyncio.sleep(0.005)
        # if I give two seconds, I expect to hear when it would do;
        with pytest.raises(Overloaded, match="after the deadline") as refused:
            await online.classify(REF, [b"x"], deadline=1.0)
        # if I have the time, I expect to be taken.
        last = asyncio.create_task(online.classify(REF, [b"x"], deadline=60))
        await stand.answer_all(2, images=10)
        await stand.answer_all(1)
        await asyncio.gather(*first, last)
        return refused.value.retry_after

    assert asked(work) == pytest.approx(2.1 - 0.8, abs=0.05)


def test_more_than_may_wait_is_refused(stand: Stand, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MOST_WAITING_BYTES", 1000)
    stand.ready()

    async def work(online: Online) -> None:
        first = asyncio.create_task(online.classify(REF, [b"x" * 500]))
        while not stand.waiting():
            await asyncio.sleep(0.005)
        with pytest.raises(Overloaded, match="More requests wait"):
            await online.classify(REF, [b"x" * 500])
        await stand.answer_all(1)
        await first

    asked(work)


def test_a_deadline_ends_the_wait_and_frees_the_memory(stand: Stand, asked: Asked) -> None:
    stand.ready()

    async def work(online: Online) -> None:
        # Given a process that knows what is served and has its connections, and a worker that answers nothing,
        first = asyncio.create_task(online.classify(REF, [b"x"]))
        await stand.answer_all(1)
        await first
        with pytest.raises(Expired, match=r"did not answer within 2 s"):
            await online.classify(REF, [b"x"], deadline=2.0)
        while stand.weight():
            await asyncio.sleep(0.005)

    asked(work)
    # A worker that answers now answers nobody.
    ((entry, id),) = stand.waiting()
    stand.redis.set(stand.keys.payload(id), messages.write_request(messages.Generate(reply_to="0" * 32)))
    assert stand.answer(entry, id) == 0
    assert stand.waiting() == []


def test_whoever_no_longer_waits_takes_the_request_back(stand: Stand, asked: Asked) -> None:
    stand.ready()

    async def work(online: Online) -> None:
        task = asyncio.create_task(online.classify(REF, [b"x"]))
        while not stand.waiting():
            await asyncio.sleep(0.005)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        while stand.weight():
            await asyncio.sleep(0.005)

    asked(work)


def test_what_an_asker_left_that_died_is_forgotten_after_its_deadline(stand: Stand, asked: Asked) -> None:
    stand.ready()
    id = str(RequestId.new(64, 10**8, REF))
    stand.redis.zadd(stand.keys.open, {id: 1})  # its deadline was in 1970
    stand.redis.hset(stand.keys.load, mapping={"bytes": 10**8, f"images:{REF}": 64})

    async def work(online: Online) -> None:
        answer = asyncio.create_task(online.classify(REF, [b"x"]))
        await stand.answer_all(1)
        await answer

    asked(work)
    assert stand.weight() == {}


def test_only_the_first_reply_counts(stand: Stand, asked: Asked) -> None:
    stand.ready()

    async def work(online: Online) -> Any:
        answer = asyncio.create_task(online.classify(REF, [b"x"]))
        while not stand.waiting():
            await asyncio.sleep(0.005)
        ((entry, id),) = stand.waiting()
        payload: Any = stand.redis.get(stand.keys.payload(id))
        assert stand.answer(entry, id) == 1
        stand.redis.set(stand.keys.payload(id), payload)
        assert stand.answer(entry, id, outcome="failed", says="late") == 0
        return await answer

    assert asked(work) == [{"key": "0", "label": "owl"}]


def test_a_redis_that_lost_everything_is_asked_again(stand: Stand, asked: Asked) -> None:
    # Given a request that waits,
    stand.ready()

    async def work(online: Online) -> Any:
        answer = asyncio.create_task(online.classify(REF, [b"x"]))
        while not stand.waiting():
            await asyncio.sleep(0.005)
        # if Redis forgets it and closes the connections, and a worker says a little later that it is ready,
        stand.redis.delete(*stand.redis.keys(f"{stand.keys.namespace}:*"))
        stand.redis.client_kill_filter(_type="normal", skipme=True)
        await asyncio.sleep(0.3)
        stand.ready()
        # I expect the same request to be there again, and its answer.
        await stand.answer_all(1)
        return await answer

    assert asked(work) == [{"key": "0", "label": "owl"}]


def test_a_redis_without_memory_refuses(stand: Stand, asked: Asked) -> None:
    stand.ready()
    before: Any = stand.redis.config_get("maxmemory")["maxmemory"]
    stand.redis.config_set("maxmemory", 1)
    try:
        with pytest.raises(Overloaded, match="no memory"):
            asked(lambda online: online.classify(REF, [b"x"]))
    finally:
        stand.redis.config_set("maxmemory", before)


def test_what_the_caller_must_change_is_said_in_a_sentence(stand: Stand, asked: Asked) -> None:
    stand.ready()
    with pytest.raises(NotServed, match="birdz answers no single requests; did you mean birds"):
        asked(lambda online: online.classify("birdz", [b"x"]))
    with pytest.raises(RequestTooLarge, match="1 to 64 images; this one has 65"):
        asked(lambda online: online.classify(REF, [b"x"] * 65))
    with pytest.raises(RequestTooLarge, match="MiB"):
        asked(lambda online: online.classify(REF, [bytes(2**23)] * 2))
    with pytest.raises(InvalidInput, match="at most 120 s"):
        asked(lambda online: online.classify(REF, [b"x"], deadline=1000))
    with pytest.raises(InvalidInput, match="top_k"):
        asked(lambda online: online.classify(REF, [b"x"], top_k=0))
    with pytest.raises(InvalidInput, match="does classify"):
        asked(lambda online: online.generate(REF))


def test_a_reply_may_say_that_it_failed(stand: Stand, asked: Asked) -> None:
    stand.ready()

    async def work(online: Online, outcome: str) -> None:
        answer = asyncio.create_task(online.classify(REF, [b"x"]))
        await stand.answer_all(1, outcome=outcome, says="Because.")
        await answer

    with pytest.raises(OnlineFailed, match="Because"):
        asked(lambda online: work(online, "failed"))
    with pytest.raises(InvalidInput, match="Because"):
        asked(lambda online: work(online, "refused"))


def test_requests_of_one_step_are_admitted_in_their_order_as_long_as_there_is_time(stand: Stand, asked: Asked) -> None:
    # Given a worker that does an image a second, if twelve are asked for at once, with 10 s each,
    stand.ready(rate=1.0)

    async def work(online: Online) -> Any:
        ids = [RequestId.new(1, 1, REF) for _ in range(12)]
        return ids, await asyncio.gather(*(online._exchange._admission.ask(id, b"x", 10_000) for id in ids))

    ids, answers = asked(work)
    # I expect as many to be taken as are done in four fifths of that.
    assert answers == [[b"taken"]] * 8 + [[b"late", 1000]] * 4
    assert [id for _, id in stand.waiting()] == [str(id) for id in ids[:8]]
    assert stand.weight() == {b"bytes": b"8", f"images:{REF}".encode(): b"8"}


def test_what_is_answered_together_may_ask_together_again(
    stand: Stand, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand.ready()
    steps: list[int] = []
    answers = Admission._answers

    async def noted(admission: Admission, some: Any) -> Any:
        steps.append(len(some))
        return await answers(admission, some)

    monkeypatch.setattr(Admission, "_answers", noted)

    async def client(online: Online) -> None:
        for _ in range(3):
            await online.classify(REF, [b"x"])

    async def work(online: Online) -> None:
        await online.resolve(REF)  # nobody waits for the store
        clients = [asyncio.create_task(client(online)) for _ in range(4)]
        for _ in range(3):
            while len(found := stand.waiting()) < 4:
                await asyncio.sleep(0.005)
            assert stand.answer_together(found) == 4
        await asyncio.gather(*clients)

    asked(work)
    assert steps == [4, 4, 4]


def test_garbage_on_the_list_of_replies_harms_nobody(stand: Stand, asked: Asked) -> None:
    stand.ready()

    async def work(online: Online) -> Any:
        answer = asyncio.create_task(online.classify(REF, [b"x"]))
        while not stand.waiting():
            await asyncio.sleep(0.005)
        replies = stand.keys.replies(online._exchange.asker)
        for garbage in (b"", b"\xff" * 100, b"\x00\x00\x00\x02{}", messages.write_reply(Reply(id="?", outcome="done"))):
            stand.redis.rpush(replies, garbage)
        await stand.answer_all(1)
        return await answer

    assert asked(work) == [{"key": "0", "label": "owl"}]


def test_replies_are_heard_again_after_an_error_of_redis(stand: Stand, asked: Asked) -> None:
    # Given a key of somebody else in the place of the list of replies,
    stand.ready()

    async def work(online: Online) -> Any:
        replies = stand.keys.replies(online._exchange.asker)
        stand.redis.set(replies, b"mine")
        answer = asyncio.create_task(online.classify(REF, [b"x"]))
        while not stand.waiting():
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.2)  # the listener has met it
        # if it goes away, I expect the request that waits meanwhile to have its answer.
        stand.redis.delete(replies)
        stand.ready()
        await stand.answer_all(1)
        return await answer

    assert asked(work) == [{"key": "0", "label": "owl"}]


def stale(online: Online, seconds: float = 1000.0) -> None:
    """Make all that was read of the bucket as old."""
    served = online._served
    served._read_at -= seconds
    served._found = {ref: (at - seconds, found) for ref, (at, found) in served._found.items()}


def test_a_store_that_is_away_keeps_nobody_from_asking(
    stand: Stand, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand.ready()

    async def work(online: Online) -> Any:
        assert (await online.resolve(REF)).ref == REF
        # Given a store that no longer answers, after what was read has become old,
        monkeypatch.setattr(ServedModels, "all", away)
        stale(online)
        # I expect what was served to be asked as before.
        answer = asyncio.create_task(online.classify(REF, [b"x"]))
        await stand.answer_all(1)
        return await answer

    assert asked(work) == [{"key": "0", "label": "owl"}]
    # One that knows of none says so.
    monkeypatch.setattr(ServedModels, "all", away)
    with pytest.raises(StoreUnavailable):
        asked(lambda online: online.resolve(REF))


def test_a_store_that_hangs_is_waited_for_within_the_deadline_alone(
    stand: Stand, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand.ready()
    hangs, read = threading.Event(), ServedModels.all

    def slowly(models: ServedModels) -> list[Served]:
        hangs.wait(20)
        return read(models)

    monkeypatch.setattr(ServedModels, "all", slowly)

    async def work(online: Online) -> Any:
        # Given a store that says nothing, if nothing is known, I expect the deadline to hold;
        with pytest.raises(Expired, match=r"did not say within 0\.3 s"):
            await online.classify(REF, [b"x"], deadline=0.3)
        hangs.set()
        # if it was read before, I expect the older answer to do.
        assert (await online.resolve(REF)).ref == REF
        stale(online)
        hangs.clear()
        answer = asyncio.create_task(online.classify(REF, [b"x"], deadline=15))
        await stand.answer_all(1)
        found = await answer
        hangs.set()
        return found

    assert asked(work) == [{"key": "0", "label": "owl"}]


def test_images_are_asked_for_as_a_job_would(stand: Stand, asked: Asked, store: ObjectStore) -> None:
    record = Served(name="painter", version=1, task="generate", created_at="2026-11-26T00:00:00Z")
    store.put(served_record("painter", 1), record.to_json())
    painter.publish(store)

    async def wrong(online: Online, **options: Any) -> None:
        await online.generate("painter", **options)

    for options, error, match in (
        ({"count": 65}, RequestTooLarge, "1 to 64 images, not 65"),
        ({"seed": 2**32}, InvalidInput, "seed"),
        ({"truncation": -1.0}, InvalidInput, "truncation"),
        ({"classes": ["owls"]}, InvalidInput, "did you mean 'owl'"),
        ({"size": 4096}, RequestTooLarge, "16 at most"),
        ({"deadline": 0}, InvalidInput, "deadline"),
    ):
        with pytest.raises(error, match=match):
            asked(partial(wrong, **options))
    with pytest.raises(InvalidInput, match="does generate"):
        asked(lambda online: online.classify("painter", [b"x"]))


def away(models: ServedModels) -> list[Served]:
    raise StoreUnavailable("The store does not answer.")


def test_keys_that_somebody_wrote_over_are_a_sentence(
    settings: Settings, stand: Stand, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "_AWAY_SECONDS", 0.1)
    served = Served(name="birds", version=1, task="classify", created_at="2026-11-26T00:00:00Z")
    stand.ready()
    # Given text in place of what waits, I expect the state without it,
    stand.redis.hset(stand.keys.load, f"images:{REF}", "many")
    (state,) = read_states(settings, [served])
    assert (state.ready, state.waiting) == (1, 0)
    stand.redis.set(stand.keys.load, "mine")
    stand.redis.set(stand.keys.workers("cats@1"), "mine")
    states = read_states(settings, [served, served.model_copy(update={"name": "cats"})])
    assert [(one.ready, one.waiting) for one in states] == [(1, 0), (0, 0)]
    # and a request to say what stands in its way.
    with pytest.raises(RedisUnavailable, match="holds something else under a key of the online path"):
        asked(lambda online: online.classify(REF, [b"x"]))
    stand.redis.delete(stand.keys.load)


def test_a_redis_that_has_become_a_replica_is_a_sentence_and_left_for_its_primary(
    stand: Stand, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "_AWAY_SECONDS", 0.1)
    stand.ready()

    async def work(online: Online) -> tuple[int, int]:
        # Given connections to a primary, if it becomes a replica, as in a failover,
        before = await online._exchange._redis.client_id()
        stand.redis.replicaof("127.0.0.1", "1")
        try:
            # I expect a sentence,
            with pytest.raises(RedisUnavailable, match=r"read-only replica; point IMAGEMILL_ONLINE_REDIS_URL to its"):
                await online.classify(REF, [b"x"])
        finally:
            stand.redis.replicaof("NO", "ONE")
        # and later requests to reach whatever has the address then.
        answer = asyncio.create_task(online.classify(REF, [b"x"]))
        while not (found := [one for one in stand.waiting() if stand.redis.exists(stand.keys.payload(one[1]))]):
            await asyncio.sleep(0.005)  # the entry of the first one may be there, too, without a payload
        assert stand.answer(*found[0]) == 1
        assert await answer == [{"key": "0", "label": "owl"}]
        return before, await online._exchange._redis.client_id()

    before, after = asked(work)
    assert after != before


def test_each_request_is_asked_for_again_once_however_often_the_connection_is_lost(
    stand: Stand, asked: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = Counter[str]()
    reconnect = Exchange._reconnect

    async def counted(self: Exchange) -> None:
        losses["seen"] += 1
        await reconnect(self)

    monkeypatch.setattr(Exchange, "_reconnect", counted)
    stand.ready()

    async def work(online: Online) -> Any:
        # Given requests that wait for their replies,
        answers = asyncio.gather(*(online.classify(REF, [b"x"], deadline=25) for _ in range(5)))
        while len(stand.waiting()) < 5:
            await asyncio.sleep(0.005)
        # if Redis answers and takes no writes for a while,
        stand.redis.replicaof("127.0.0.1", "1")
        try:
            while losses["seen"] < 10:
                await asyncio.sleep(0.005)
            # I expect each to be asked for by one task,
            assert len(online._exchange._tasks) <= 5
        finally:
            stand.redis.replicaof("NO", "ONE")
        # and answered later.
        await stand.answer_all(5)
        return await answers

    assert asked(work) == [[{"key": "0", "label": "owl"}]] * 5


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
def test_connections_of_both_kinds_leave_a_replica(settings: Settings, scheme: str) -> None:
    address = need_address(settings.model_copy(update={"online_redis_url": SecretUrl(f"{scheme}://127.0.0.1:1/0")}))
    waiting = connect_async(address, connections=1, timeout=1).connection_pool
    blocking = connect(address, connections=1).connection_pool
    assert blocking.connection_class is address.connection_class
    assert issubclass(waiting.connection_class, _EndsUnwritable)
    assert issubclass(waiting.connection_class, redis.asyncio.SSLConnection) == (scheme == "rediss")


def test_the_state_shows_who_is_ready_and_what_waits(settings: Settings, stand: Stand, asked: Asked) -> None:
    stand.ready(rate=100.0)
    stand.ready(rate=50.0, process="p2")
    stand.ready(rate=50.0, ago=60, process="dead")
    stand.redis.hset(stand.keys.workers(REF), "garbage", b"\xff")
    served = Served(name="birds", version=1, task="classify", created_at="2026-11-26T00:00:00Z")
    (state,) = read_states(settings, [served])
    assert (state.ready, state.capacity, state.waiting) == (2, 150.0, 0)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "done"),
        (InvalidInput("x"), "refused"),
        (OnlineFailed("x"), "failed"),
        (Overloaded("x", retry_after=1), "overloaded"),
        (Expired("x"), "expired"),
        (RedisUnavailable("x"), "unavailable"),
        (asyncio.CancelledError(), "abandoned"),
    ],
)
def test_a_request_is_measured_with_what_came_of_it(error: BaseException | None, outcome: str) -> None:
    # Given a process that is looked into, if a request ends, I expect its time under its outcome alone.
    metrics = Metrics(["web"])
    meters.record_with(metrics)
    try:
        with suppress(BaseException), exchange._measured():
            if error is not None:
                raise error
    finally:
        meters.record_with(None)
    found = Scraped(metrics.page().body.decode())
    assert found.total("imagemill_online_forward_seconds_count", outcome=outcome) == 1
    assert found.total("imagemill_online_forward_seconds_count") == 1
