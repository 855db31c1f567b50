"""The loop: what waits goes out, nobody waits for a slow receiver, and one controller delivers at a time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler

import pytest
from pydantic import SecretStr

from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.keys.bucket import WEBHOOKS
from contract.keys.webhooks import WEBHOOK_OF_ALL
from contract.settings import Settings
from contract.times import iso
from contract.web.webhooks.endpoints import Endpoint, Endpoints
from contract.web.webhooks.outbox import Attempt, Event, Outbox, Waiting
from producer.jobs.webhooks import remove
from tests.hooks import Receiver
from tests.sites import drip, send
from tests.waiting import wait_until
from tests.worker.control.webhooks.conftest import POLICY
from worker.control.webhooks.courier import Courier, _Receiver
from worker.control.webhooks.delivery import Delivery
from worker.control.webhooks.post import Answer, Poster

SHORT = (0.2, 0.5, 600.0)


@contextmanager
def courier(
    settings: Settings, *, seconds: float = 60.0, delays: tuple[float, ...] = SHORT, lock_seconds: float = 2.0
) -> Iterator[Courier]:
    """A controller that delivers, with servers of its own. A request that is answered meets no deadline."""
    with closing(ObjectStore(settings)) as store, closing(Ledger(settings, patience=3)) as ledger:
        delivery = Delivery(store, Poster(POLICY, seconds=seconds), delays)
        made = Courier(store, ledger, settings, delivery, lock_seconds=lock_seconds)
        made.begin()
        try:
            yield made
        finally:
            made.close()


def tell(store: ObjectStore, hook: Endpoint, *subjects: str) -> None:
    """Have a message wait about each of these."""
    for subject in subjects:
        event = Event("job.succeeded", subject, int(time.time() * 1000), {"job": subject})
        Outbox(store).add(event, hook.id, time.time())


def _forget(ledger: Ledger) -> None:
    """Lose all that Redis holds of this test."""
    for key in list(ledger.redis.scan_iter(f"{ledger.keys.namespace}:*")):
        ledger.redis.delete(key)


def register(store: ObjectStore, receiver: Receiver, path: str = "/hook") -> Endpoint:
    return Endpoints(store).register(receiver.url(path), "ann", POLICY)


def test_what_ended_is_told(
    settings: Settings, store: ObjectStore, hook: Endpoint, receiver: Receiver, ended: Callable[..., str]
) -> None:
    with courier(settings):
        ended("animals", hook.id, ok=3)
        wait_until(lambda: len(receiver.posts) == 1, 20, "the message")
        (secret,) = Endpoints(store).secrets(hook.id)
        assert receiver.posts[0].verified(secret)["data"]["job"] == "animals"
        wait_until(lambda: Outbox(store).count_waiting(hook.id) == 0, 20, "its record")


def test_nobody_waits_for_receivers_that_are_slow(
    settings: Settings, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given four lanes, two of them for slow receivers, four that never end their answers, and one that is well,
    for name, value in (("_THREADS", 4), ("_SLOW_THREADS", 2), ("_SLOW_SECONDS", 0.1)):
        monkeypatch.setattr(f"worker.control.webhooks.courier.{name}", value)
    gone = threading.Event()
    with (
        Receiver(lambda request: drip(request, gone)).listening() as slow,
        Receiver().listening() as quick,
        courier(settings, seconds=0.5) as made,
    ):
        for n in range(4):
            tell(store, register(store, slow, f"/{n}"), "a")
        wait_until(lambda: len({post.path for post in slow.posts}) == 4, 30, "each to be tried")
        wait_until(lambda: all(one.slow for one in made._receivers.values()), 30, "each to be known as slow")
        # if they hold their lanes for ever, and something happens, I expect the quick one to be told.
        made.delivery.poster._seconds = 3600.0
        for n in range(4):
            tell(store, register(store, slow, f"/{n}"), "b", "c")
        wait_until(lambda: len(made._running) == 2, 30, "the slow lanes to be held")
        tell(store, register(store, quick), "x")
        wait_until(lambda: len(quick.posts) == 1, 30, "the quick one")
        gone.set()


def test_two_controllers_deliver_each_message_once(
    settings: Settings, store: ObjectStore, hook: Endpoint, receiver: Receiver
) -> None:
    # A lock that lapses while this process stands still would have both deliver for a moment, as it may.
    with courier(settings, lock_seconds=60.0), courier(settings, lock_seconds=60.0):
        tell(store, hook, *map(str, range(20)))
        wait_until(lambda: Outbox(store).count_waiting(hook.id) == 0, 30, "all to be delivered")
    assert len(receiver.ids) == len(set(receiver.ids)) == 20


def test_a_redis_that_is_wiped_loses_nothing(
    settings: Settings, store: ObjectStore, ledger: Ledger, hook: Endpoint, receiver: Receiver
) -> None:
    receiver.behave = lambda request: send(request, 500)
    with courier(settings):
        tell(store, hook, *map(str, range(5)))
        wait_until(lambda: len(receiver.posts) >= 1, 20, "an attempt")
        _forget(ledger)
        receiver.behave = lambda request: send(request, 200)
        tell(store, hook, "later")
        wait_until(lambda: Outbox(store).count_waiting(hook.id) == 0, 60, "all to be delivered")
    assert len(set(receiver.ids)) == 6


def test_what_waits_goes_out_when_its_receiver_answers_again(
    settings: Settings, store: ObjectStore, hook: Endpoint, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given messages whose next attempt is ten minutes away,
    monkeypatch.setattr("worker.control.webhooks.retries._EARLY_SECONDS", 0.5)
    receiver.behave = lambda request: send(request, 503)
    with courier(settings, delays=(600.0,)):
        tell(store, hook, "a", "b", "c")
        wait_until(lambda: len(set(receiver.ids)) == 3, 30, "each to fail")
        # if the receiver is well and something else happens, I expect all of them now.
        receiver.behave = lambda request: send(request, 200)
        tell(store, hook, "d")
        wait_until(lambda: Outbox(store).count_waiting(hook.id) == 0, 30, "all to be delivered")
    assert len(set(receiver.ids)) == 4


def test_a_message_that_always_fails_keeps_to_the_schedule_while_others_are_delivered(
    settings: Settings, store: ObjectStore, hook: Endpoint, receiver: Receiver
) -> None:
    def behave(request: BaseHTTPRequestHandler) -> None:
        send(request, 500 if "msg_" + poison.replace("-", "_") == request.headers["webhook-id"] else 204)

    event = Event("job.failed", "poison", int(time.time() * 1000), {"job": "poison"})
    poison, moved, receiver.behave = event.name(hook.id), [0.0], behave
    with closing(ObjectStore(settings)) as own, closing(Ledger(settings, patience=3)) as ledger:
        delivery = Delivery(own, Poster(POLICY, seconds=60), clock=lambda: time.time() + moved[0])
        made = Courier(own, ledger, settings, delivery, clock=delivery.clock, lock_seconds=60.0)
        made.begin()
        with closing(made):
            # Given a message that a receiver always fails, and that has been sent twice by its schedule,
            Outbox(store).add(event, hook.id, time.time())
            for attempts, seconds in ((1, 0.0), (2, 10.0)):
                moved[0] += seconds
                wait_until(partial(tried, Outbox(store), hook, attempts), 30, "attempts by the schedule")
            # if the receiver takes another one every six seconds, I expect that one to be sent early once.
            for number in range(6):
                moved[0] += 6.0
                tell(store, hook, f"well {number}")
                wait_until(lambda: Outbox(store).count_waiting(hook.id) == 1, 30, "the other to be delivered")
                wait_until(lambda: not made._running, 30, "what is under way")
            assert Counter(receiver.ids)[f"msg_{poison.replace('-', '_')}"] <= 3


def tried(outbox: Outbox, hook: Endpoint, attempts: int) -> bool:
    """Whether each message was sent so often."""
    return {told.attempts for told in outbox.messages(hook.id, limit=9)} == {attempts}


def test_a_receiver_that_was_down_for_ten_minutes_is_told_once_it_is_back(
    settings: Settings, store: ObjectStore, hook: Endpoint, receiver: Receiver
) -> None:
    # Given a receiver that is down, the schedule of a real controller, and a clock that is moved,
    moved, outbox = [0.0], Outbox(store)
    with (
        closing(ObjectStore(settings)) as own,
        closing(Ledger(settings, patience=3)) as ledger,
        Receiver(lambda request: send(request, 503)).listening() as down,
    ):
        late = register(store, down)
        delivery = Delivery(own, Poster(POLICY, seconds=60), clock=lambda: time.time() + moved[0])
        made = Courier(own, ledger, settings, delivery, clock=delivery.clock, lock_seconds=60.0)
        made.begin()
        with closing(made):
            tell(store, late, "a", "b")
            for attempts, seconds in ((1, 0.0), (2, 10.0), (3, 590.0)):
                moved[0] += seconds
                wait_until(partial(tried, outbox, late, attempts), 30, "attempts by the schedule")
            # I expect others to be told meanwhile, without a wait,
            tell(store, hook, "x")
            wait_until(lambda: len(receiver.posts) == 1, 30, "the other")
            # and once it is back, though nothing new happens, all that it missed, half an hour before it is due.
            down.behave = lambda request: send(request, 204)
            moved[0] += 70.0
            wait_until(lambda: outbox.count_waiting(late.id) == 0, 30, "what it missed")
        assert {told.state for told in outbox.messages(late.id, limit=9)} == {"delivered"}
        assert len(set(down.ids)) == 2


def test_a_receiver_that_asked_for_time_or_refuses_a_message_is_not_probed(settings: Settings) -> None:
    now = time.time()

    def probed(status: int | None, due: float, ago: float = 61.0) -> bool:
        last = Attempt(at=iso(now - ago) or "", status=status, error="it failed")
        waiting = Waiting(attempts=3, due=now + due, last=last)
        receiver = _Receiver()
        with closing(ObjectStore(settings)) as store, closing(Ledger(settings, patience=3)) as ledger:
            made = Courier(store, ledger, settings, Delivery(store, Poster(POLICY)), clock=lambda: now)
            first = made._probes(waiting, receiver, now, 0)
            # One at a time, and not twice in a minute.
            assert not made._probes(waiting, receiver, now, 1)
            assert not (first and made._probes(waiting, receiver, now + 59, 0))
        return first

    assert probed(None, 1700.0) and probed(503, 1700.0)
    assert not probed(503, 7200.0), "it asked for two hours"
    assert not probed(400, 1700.0) and not probed(429, 1700.0), "it is well"
    assert not probed(None, 1700.0, ago=30.0)


def test_answers_to_probes_say_when_the_next_one_goes_out(settings: Settings) -> None:
    now, hour = time.time(), 3600.0

    def probed(made: Courier, receiver: _Receiver, at: float) -> bool:
        last = Attempt(at=iso(at - 3 * hour) or "", status=None, error="it timed out")
        return made._probes(Waiting(attempts=3, due=at - 2.5 * hour, last=last), receiver, at, 0)

    with closing(ObjectStore(settings)) as store, closing(Ledger(settings, patience=3)) as ledger:
        made = Courier(store, ledger, settings, Delivery(store, Poster(POLICY)), clock=lambda: now)
        # Given a receiver that was down for long, if a probe is answered with a time, I expect it to be kept,
        receiver = _Receiver()
        assert probed(made, receiver, now)
        made._learn(receiver, Answer(0.1, status=503, error="it answered 503", asked=5 * hour))
        assert not probed(made, receiver, now + 4 * hour) and probed(made, receiver, now + 6 * hour)
        # and if it is delivered, no message to be sent early, although the receiver fails that one alone,
        made._learn(receiver, Answer(0.1, status=204))
        assert not probed(made, receiver, now + 6 * hour)
        # until the receiver is down again, and then no wait that is left of the time before.
        made._learn(receiver, Answer(0.1, status=503, error="it answered 503"))
        assert probed(made, receiver, now + 60)


def test_a_webhook_of_all_follows_the_setting(settings: Settings, store: ObjectStore, receiver: Receiver) -> None:
    told = settings.model_copy(update={"webhook_url": SecretStr(receiver.url("/all")), "fetch_allow": "127.0.0.1"})
    told = told.model_copy(update={"fetch_ports": "1-65535"})

    def named() -> bool:
        return store.exists(WEBHOOK_OF_ALL)

    with courier(told):
        wait_until(named, 20, "the webhook of all")
    (one,) = Endpoints(store).all()
    assert (one.owner, store.get(WEBHOOK_OF_ALL).decode()) == ("", one.id)
    with courier(settings):
        wait_until(lambda: not named(), 20, "nobody to be told of all")
    # A setting that may not be reached is no webhook, and stops nothing.
    refused = told.model_copy(update={"webhook_url": SecretStr("http://169.254.169.254/xyzzy")})
    with courier(refused):
        hook = register(store, receiver)
        tell(store, hook, "a")
        wait_until(lambda: len(receiver.posts) == 1, 20, "others to be told")
    assert not named()


def test_a_webhook_that_is_removed_while_it_is_told_leaves_nothing(
    settings: Settings, store: ObjectStore, hook: Endpoint, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a request under way, and messages behind it whose turn has not come,
    monkeypatch.setattr("worker.control.webhooks.courier._PRUNE_SECONDS", 0.5)
    held = threading.Event()

    def stall(request: BaseHTTPRequestHandler) -> None:
        held.wait(60)
        send(request, 500)

    receiver.behave = stall
    with courier(settings, seconds=60.0) as made:
        tell(store, hook, *"abcdef")
        wait_until(lambda: len(receiver.posts) == 2, 30, "two requests")
        # if the webhook is removed, and then the requests fail and are recorded,
        remove(store, hook)
        held.set()
        # I expect that nothing else is sent, and that nothing of it is left in the bucket.
        wait_until(lambda: not made._running and not list(store.list(WEBHOOKS)), 60, "its records to go")
        other = register(store, receiver, "/other")
        receiver.behave = lambda request: send(request, 200)
        tell(store, other, "x")
        wait_until(lambda: Outbox(store).count_waiting(other.id) == 0, 30, "another to be told")
    assert [post.path for post in receiver.posts] == ["/hook", "/hook", "/other"]


def test_a_controller_that_leaves_ends_its_requests_at_once(
    settings: Settings, store: ObjectStore, hook: Endpoint, receiver: Receiver
) -> None:
    held = threading.Event()

    def stall(request: BaseHTTPRequestHandler) -> None:
        held.wait(30)
        request.close_connection = True

    receiver.behave = stall
    with courier(settings, seconds=30.0):
        tell(store, hook, "a")
        wait_until(lambda: len(receiver.posts) == 1, 20, "the request")
    held.set()
    receiver.behave = lambda request: send(request, 200)
    # I expect that the next one sends it again at once, as if it had not been tried.
    with courier(settings):
        wait_until(lambda: Outbox(store).count_waiting(hook.id) == 0, 20, "it to be delivered")
    assert len(set(receiver.ids)) == 1
    assert Outbox(store).messages(hook.id, limit=1)[0].attempts == 1
