"""Keeps the served models loaded in this process, as the bucket says, and says to Redis that they are."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress

import redis

from contract.errors import ImagemillError, ServiceUnavailable
from contract.keys.online import OnlineKeys
from contract.keys.queues import QUEUE_CLASSIFY, QUEUE_GENERATE
from contract.online.connection import LOST, connect, online_address
from contract.online.served import Served, ServedModels
from worker.execution.capabilities import of_this_process
from worker.execution.resources import Resources
from worker.process.serving.counter import Counter
from worker.process.serving.inbox import Inbox
from worker.process.serving.labels import Labels
from worker.process.serving.work import Work

log = logging.getLogger(__name__)

_BEAT_SECONDS = 0.5
_LIST_SECONDS = 10.0
"""Between two looks at the bucket, unless somebody says that it has changed."""
_QUEUES = {"classify": QUEUE_CLASSIFY, "classify-sequence": QUEUE_CLASSIFY, "generate": QUEUE_GENERATE}
"""The queue that a worker serves that may run a model of this task."""
_STOP_SECONDS = 10.0


class Keeper:
    """Serves what is to be served from `start` to `stop`; it does nothing without a Redis for requests."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._counters: dict[str, tuple[Served, Counter, ExitStack]] = {}
        self._broken: dict[str, Served] = {}
        self._listed_at = float("-inf")
        self._loading = ""
        self._changed: bytes | None = None
        self._threads: list[threading.Thread] = []
        self._client: redis.Redis | None = None

    @property
    def loading(self) -> str:
        """The served model that is being loaded now, for `/readyz`; empty if there is none."""
        return self._loading

    def start(self) -> None:
        """Begin to look what is served."""
        try:
            address = online_address(self._resources.settings)
        except ImagemillError as error:
            log.error("No model is served: %s", error)
            return
        if address is None or not set(_QUEUES.values()) & self._resources.queues:
            return
        # A connection for each model's reader, which waits on it, and some for replies and beats.
        self._client = connect(address, connections=64)
        for work, name in ((self._keep, "served-models"), (self._beats, "serving-beat")):
            self._threads.append(threading.Thread(target=work, name=name, daemon=True))
            self._threads[-1].start()

    def stop(self) -> None:
        """Take no more requests, reply to those that were taken, and let go of the models."""
        self._stop.set()
        with self._lock:
            counters = {ref: counter for ref, (_, counter, _) in self._counters.items()}
        for counter in counters.values():  # all of them before the first is waited for
            counter.close()
        for ref in counters:
            self._end(ref)

    # What is served

    def _keep(self) -> None:
        while not self._stop.is_set():
            if self._due():
                try:
                    self._follow(ServedModels(self._resources.backend.store).all())
                    self._listed_at = time.monotonic()
                except ServiceUnavailable as error:
                    log.info("What is served is not known now: %s", error)
                except Exception:
                    log.exception("What is served cannot be read")
                    self._listed_at = time.monotonic()
            self._stop.wait(_BEAT_SECONDS)

    def _due(self) -> bool:
        changed = self._changed
        with suppress(redis.RedisError):
            assert self._client is not None
            found = self._client.get(OnlineKeys(self._resources.settings.namespace).changed)
            changed = found if isinstance(found, bytes) else None
        due = changed != self._changed or time.monotonic() - self._listed_at > _LIST_SECONDS
        self._changed = changed
        return due

    def _follow(self, wanted: list[Served]) -> None:
        mine = {served.ref: served for served in wanted if _QUEUES.get(served.task) in self._resources.queues}
        for ref, (served, _, _) in list(self._counters.items()):
            if mine.get(ref) != served:
                self._end(ref)
        for ref, served in mine.items():
            if ref not in self._counters and self._broken.get(ref) != served and not self._stop.is_set():
                self._begin(served)

    def _begin(self, served: Served) -> None:
        """Load a model and take its requests; one that cannot be loaded is tried again once its record changes."""
        resources, ref = self._resources, served.ref
        assert self._client is not None
        self._loading = ref
        held = ExitStack()
        try:
            began = time.monotonic()
            if not resources.once(of_this_process).rule.admits([resources.models.model(ref)]):
                self._broken[ref] = served
                log.info("%s is not served here: this worker may not run it", ref)
                return
            work = held.enter_context(self._load(served))
            inbox = Inbox(self._client, OnlineKeys(resources.settings.namespace), ref, resources.process)
            counter = Counter(resources, inbox, work)
            counter.start()
        except ServiceUnavailable as error:
            held.close()
            log.info("%s is not served yet: %s", ref, error)
        except Exception as error:
            held.close()
            self._broken[ref] = served
            log.exception("%s is not served here: %s", ref, error)
        else:
            held.callback(self._leave, inbox)
            with self._lock:
                self._counters[ref] = served, counter, held
            log.info("%s is served after %.1f s, at %.0f images/s", ref, time.monotonic() - began, counter.pace.rate)
            if self._stop.is_set():  # `stop` did not see it
                self._end(ref)
        finally:
            self._loading = ""

    @contextmanager
    def _load(self, served: Served) -> Iterator[Work]:
        """Hold a model loaded; raises what loading it raises."""
        resources, models = self._resources, self._resources.models
        model = models.model(served.ref)
        if served.task == "generate":
            # Late, because a worker that only labels may do without torch.
            from worker.generation.shard import device_slots
            from worker.process.serving.images import Images

            with models.use_generator(served.ref, served.precision) as generator:
                images = Images(model, generator, served.precision, device_slots(resources))
                with closing(images):
                    yield images
        else:
            with models.use(served.ref, served.precision) as loaded:
                yield Labels(model, loaded)

    def _end(self, ref: str) -> None:
        with self._lock:
            found = self._counters.get(ref)
        if found is not None:
            _, counter, held = found
            counter.stop(_STOP_SECONDS)
            with self._lock:
                self._counters.pop(ref, None)
            held.close()

    def _leave(self, inbox: Inbox) -> None:
        with suppress(redis.RedisError):
            inbox.leave()

    # Beats

    def _beats(self) -> None:
        """Say twice a second what is served, also while a process leaves, until it has replied to all."""
        while not self._stop.is_set() or self._counters:
            with self._lock:
                counters = [counter for _, counter, _ in self._counters.values()]
            for counter in counters:
                try:
                    counter.beat()
                except LOST as error:
                    log.debug("No beat: %s", error)
                except Exception:
                    log.exception("A beat failed")
            time.sleep(_BEAT_SECONDS)
