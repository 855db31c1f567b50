"""Delivers what waits: one loop that knows when each message is due, and a few threads that send.

One controller delivers at a time, under a lock in Redis; the others stand by. What it knows is in the bucket, so a
Redis that is wiped costs nothing, and two that deliver for a moment send a message twice, with one id.

A receiver that is slow, or does not answer, holds two threads, and all slow ones together half of them, so that quick
ones are told at once. After a failure a receiver gets a pause. While it is down, one message at a time is sent before
it is due, at most each minute and ever more seldom; when it answers again, what waits for it goes out. A message that
fails all the same, while others are delivered, is sent early ever more seldom, too.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime

from contract.backend.ledger import Ledger
from contract.backend.lock import Lock
from contract.backend.objects import ObjectStore
from contract.errors import ImagemillError, InvalidInput
from contract.instruments import WEBHOOK_OLDEST_SECONDS, WEBHOOK_WAITING
from contract.keys.webhooks import WAITING_MESSAGES, WEBHOOK_OF_ALL, message_ms, parse_webhook_message
from contract.settings import Settings
from contract.web.addresses import AddressPolicy
from contract.web.webhooks.endpoints import Endpoints, endpoint_id
from contract.web.webhooks.notes import webhook_of_all
from contract.web.webhooks.outbox import Outbox, Waiting
from worker.control.webhooks.announce import Announcer
from worker.control.webhooks.delivery import Delivery
from worker.control.webhooks.post import Answer, Poster
from worker.control.webhooks.retries import early_delay, heeded, longest_delay, pause, probe_delay
from worker.execution.resources import Resources

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_LOOK_SHARE = 10
"""A look takes at most one part in so many of the time, however many messages wait."""
_STANDBY_SECONDS = 2.0
_LOCK_SECONDS = 30.0
_PRUNE_SECONDS = 3600.0
_PATIENCE = 3.0
_READ_AT_ONCE = 1000
"""Messages that a look reads anew."""
_THREADS = 32
_SLOW_THREADS = 16
_EACH = 2
"""Messages that one receiver is sent at once."""
_SLOW_SECONDS = 3.0

Key = tuple[str, str]
"""A webhook and the name of a message to it."""


@dataclass(eq=False)
class _Receiver:
    """What is known of one webhook while this controller delivers."""

    failures: int = 0
    """Requests in a row that its receiver seems to have failed."""
    pause_until: float = 0.0
    back_at: float = 0.0
    """When it last answered after a failure."""
    probe_at: float = 0.0
    """When it may be sent a message to see whether it is back."""
    slow: bool = False
    answered: bool = False
    """Whether it has answered this controller; an earlier one may have seen it fail."""
    unrecorded: int = 0
    """Attempts in a row of which nothing could be written."""


@dataclass(eq=False)
class Courier:
    """The webhooks of one controller; `begin` starts it."""

    store: ObjectStore
    ledger: Ledger
    settings: Settings
    delivery: Delivery
    clock: Callable[[], float] = time.time
    lock_seconds: float = _LOCK_SECONDS
    _waiting: dict[Key, tuple[str, Waiting]] = field(default_factory=dict)
    """What waits, each with the etag that its object had when it was read."""
    _running: set[Key] = field(default_factory=set)
    _failed_early: Counter[Key] = field(default_factory=Counter)
    """How often each message that waits failed although its receiver answered again."""
    _receivers: dict[str, _Receiver] = field(default_factory=lambda: defaultdict(_Receiver))
    _wake: threading.Condition = field(default_factory=threading.Condition)
    _closing: threading.Event = field(default_factory=threading.Event)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_THREADS, "webhook"))
    _thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start to deliver, as soon as no other controller does."""
        self._thread = threading.Thread(target=self._loop, name="webhooks", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Begin no more requests, and end those that run: whoever delivers next sends them again."""
        self._closing.set()
        self.delivery.poster.close()
        with self._wake:
            self._wake.notify_all()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Wait until the loop has let another controller deliver."""
        self.leave()
        if self._thread is not None:
            self._thread.join(_LOOK_SECONDS + 1)

    # The loop

    def _loop(self) -> None:
        while not self._closing.is_set():
            try:
                with self.ledger.lock("webhooks", "", self.lock_seconds) as lock:
                    if lock is not None:
                        self._lead(lock)
            except ImagemillError as error:
                log.warning("Webhooks wait: %s", error)
            except Exception:
                log.exception("Webhooks wait")
            self._show()
            self._closing.wait(_STANDBY_SECONDS)

    def _lead(self, lock: Lock) -> None:
        """Deliver until the lock is lost or this process ends."""
        self._waiting.clear()
        announcer, look, prune = Announcer(self.store, self.clock), 0.0, 0.0
        while lock.held and not self._closing.is_set():
            if time.monotonic() >= look:
                announcer.round()
                began = time.monotonic()
                self.look()
                self._show()
                took = time.monotonic() - began
                look = time.monotonic() + max(_LOOK_SECONDS, took * _LOOK_SHARE)
            if time.monotonic() >= prune:
                self._name_webhook_of_all()
                self._prune()
                prune = time.monotonic() + _PRUNE_SECONDS
            with self._wake:
                for key, early in self._next():
                    self._start(key, early=early)
                self._wake.wait(max(0.0, min(look, time.monotonic() + _LOOK_SECONDS) - time.monotonic()))

    def _name_webhook_of_all(self) -> None:
        """Have `IMAGEMILL_WEBHOOK_URL` told of everything, or nobody."""
        url, wanted = self.settings.webhook_url.get_secret_value(), None
        if url:
            try:
                wanted = Endpoints(self.store).register(url, "", AddressPolicy.of(self.settings)).id
            except InvalidInput as error:
                # One that was used before stays: perhaps only its name server fails, and each delivery asks again.
                known = Endpoints(self.store).find(endpoint_id(url, ""))
                wanted = None if known is None else known.id
                log.error("IMAGEMILL_WEBHOOK_URL %s: %s", "fails" if wanted else "is not used", error)
        if webhook_of_all(self.store) != wanted:
            if wanted is None:
                self.store.delete(WEBHOOK_OF_ALL)
            else:
                self.store.put(WEBHOOK_OF_ALL, wanted.encode())
                log.info("The webhook %s is told of every job", wanted)

    def _prune(self) -> None:
        for id, gone, size in Outbox(self.store).old(self.clock()):
            self.store.delete_all(gone)
            log.info("Old messages to the webhook %s were deleted: %d objects, %d bytes", id, len(gone), size)

    # What waits

    def look(self) -> None:
        """Read what waits, as far as it has changed."""
        there = {
            key: f"{entry.etag} {entry.modified}"
            for entry in self.store.list(WAITING_MESSAGES)
            if (key := parse_webhook_message(entry.key)) is not None
        }
        with self._wake:
            for key in self._waiting.keys() - there.keys() - self._running:
                self._forget(key)
            changed = [key for key, etag in there.items() if self._waiting.get(key, ("",))[0] != etag]
            running = set(self._running)
        outbox = Outbox(self.store)
        for key in [key for key in changed if key not in running][:_READ_AT_ONCE]:
            found = outbox.waiting(*key)
            with self._wake:
                if found is not None and key not in self._running:
                    self._waiting[key] = there[key], found

    def _next(self) -> Iterator[tuple[Key, bool]]:
        """Yield what may be sent now, the longest due first, and whether that is early; within all bounds."""
        now = self.clock()
        each = Counter(id for id, _ in self._running)
        slow = sum(1 for id, _ in self._running if self._receivers[id].slow)
        for key, (_, waiting) in sorted(self._waiting.items(), key=lambda one: one[1][1].due):
            if len(self._running) >= _THREADS:
                return
            receiver, early = self._receivers[key[0]], False
            if key in self._running or each[key[0]] >= _EACH or receiver.pause_until > now:
                continue
            if receiver.slow and slow >= _SLOW_THREADS:
                continue
            if waiting.due > now:
                early = self._early(key, waiting, receiver, now) or self._probes(waiting, receiver, now, each[key[0]])
                if not early:
                    continue
            each[key[0]] += 1
            slow += receiver.slow
            yield key, early

    def _early(self, key: Key, waiting: Waiting, receiver: _Receiver, now: float) -> bool:
        """Return whether a message that failed before its receiver answered again should go out now."""
        wait = early_delay(self._failed_early[key], self.delivery.delays)
        failed_at = _failed_before(waiting, receiver)
        return failed_at is not None and now - failed_at >= wait

    def _probes(self, waiting: Waiting, receiver: _Receiver, now: float, under_way: int) -> bool:
        """Return whether a message should go out to see whether its receiver, which was down, answers again."""
        last, well = waiting.last, receiver.answered and not receiver.failures
        if well or under_way or receiver.probe_at > now or last is None or not _down(last.status):
            return False
        at = _seconds(last.at)
        if waiting.due - at > longest_delay(waiting.attempts, self.delivery.delays) + 1.0:
            return False  # its receiver has asked for more time
        wait = probe_delay(waiting.attempts, self.delivery.delays)
        if now - at < wait:
            return False
        receiver.probe_at = now + wait
        return True

    def _start(self, key: Key, *, early: bool) -> None:
        if not self._closing.is_set():
            self._running.add(key)
            self._pool.submit(self._run, key, early)

    def _run(self, key: Key, early: bool) -> None:
        answer, before = None, self._waiting[key][1] if key in self._waiting else None
        now = before
        try:
            answer, now = self.delivery.attempt(*key, early=early)
        except ImagemillError as error:
            log.warning("A message to the webhook %s waits: %s", key[0], error)
            self._rest(key)
        except Exception:
            log.exception("A message to the webhook %s waits", key[0])
            self._rest(key)
        with self._wake:
            self._running.discard(key)
            if now is None:
                self._forget(key)
            else:
                self._waiting[key] = "", now  # read again at the next look
            if answer is not None:
                receiver = self._receivers[key[0]]
                receiver.unrecorded = 0
                if early and before is not None and now and _failed_before(before, receiver):
                    self._failed_early[key] += 1
                self._learn(receiver, answer)
            self._wake.notify_all()

    def _forget(self, key: Key) -> None:
        self._waiting.pop(key, None)
        self._failed_early.pop(key, None)

    def _rest(self, key: Key) -> None:
        """Give a webhook a pause because of the store, longer each time: what cannot be recorded is sent again."""
        with self._wake:
            receiver = self._receivers[key[0]]
            receiver.pause_until = self.clock() + _STANDBY_SECONDS * 2 ** min(receiver.unrecorded, 8)
            receiver.unrecorded += 1

    def _learn(self, receiver: _Receiver, answer: Answer) -> None:
        now = self.clock()
        receiver.slow = answer.seconds > _SLOW_SECONDS
        if answer.unwell:
            receiver.failures += 1
            receiver.pause_until = now + pause(receiver.failures, answer.asked)
            receiver.probe_at = max(receiver.probe_at, now + heeded(answer.asked))
        elif answer.delivered:
            receiver.probe_at = 0.0
            if receiver.failures or not receiver.answered:
                receiver.failures, receiver.pause_until, receiver.back_at = 0, 0.0, now
        receiver.answered = receiver.answered or answer.delivered

    def _show(self) -> None:
        with self._wake:
            names = [name for _, name in self._waiting]
        WEBHOOK_WAITING.set(len(names))
        oldest = min(map(message_ms, names), default=None)
        WEBHOOK_OLDEST_SECONDS.set(0.0 if oldest is None else max(0.0, self.clock() - oldest / 1000))


def _failed_before(waiting: Waiting, receiver: _Receiver) -> float | None:
    """Return when a message failed last, in seconds since the epoch, if its receiver has answered again since."""
    at = None if waiting.last is None else _seconds(waiting.last.at)
    return at if at is not None and at < receiver.back_at else None


def _down(status: int | None) -> bool:
    """Return whether a receiver that answered so, or did not answer, seems to be down, whatever it is sent."""
    return status is None or status >= 500


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def make_courier(resources: Resources) -> Courier:
    """Return what delivers to webhooks in a controller; a server that is away is asked again at the next look."""
    settings = resources.settings
    store, ledger = ObjectStore(settings, patience=_PATIENCE), Ledger(settings, patience=_PATIENCE)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # below, it logs paths of URLs, which may be passwords
    delivery = Delivery(store, Poster(AddressPolicy.of(settings)))
    return Courier(store, ledger, settings, delivery, lock_seconds=settings.lease_seconds)
