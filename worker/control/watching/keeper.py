"""Keeps this controller's share of all watches: one loop that knows when each is due, and a few threads that sweep.

The loop lists the records once a second, renews the claims, and tells Redis how each watch stands. An idle watch costs
one request to the store at each of its intervals. A second thread hears of hints, and has their watches looked at
earlier.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field

from contract.backend.ledger import Ledger
from contract.backend.objects import ObjectStore
from contract.errors import ImagemillError, InvalidWatch, ServiceUnavailable, UnknownWatch
from contract.jobs.lifecycle import Backend
from contract.keys.bucket import WATCHES
from contract.keys.watches import parse_watch
from contract.settings import Settings
from contract.watches import claims
from contract.watches.hints import Hints, Told
from contract.watches.record import Watch, Watches
from contract.watches.state import WatchState, read_states, write_states
from worker.control.watching.afterwards import Afterwards
from worker.control.watching.archives import Archives
from worker.control.watching.chain import Chain
from worker.control.watching.retire import leftovers, retire
from worker.control.watching.sweep import Sweep
from worker.control.watching.tables import Tables
from worker.control.watching.then import Then
from worker.execution.resources import Resources

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_SLICE_SECONDS = 1.0
"""A round makes room for other watches after about so long; a backfill takes many."""
_THREADS = 8
_PAUSED_SECONDS = 10.0
_FULL_SECONDS = 1.0
"""How often a watch looks again whether earlier segments have ended."""
_TELL_SECONDS = 5.0
_RETRY_SECONDS = 5.0
_HINTED_SECONDS = 1.0
_HINTED_SHARE = 0.1
_HINTED_DUTY = 20
"""A hint starts the next round a second after the last began, a tenth of `--every` or twenty times as long as that
round took, whichever is the longest: hints cost a watch a twentieth of a thread, and less when a controller is busy."""
_GATHER_SECONDS = 0.05
"""A camera announces each of its images; they are heard of so many seconds' worth at a time."""
_PATIENCE = 3.0


@dataclass(eq=False)
class _Kept:
    """A watch that this controller keeps."""

    watch: Watch
    due: float = 0.0
    soonest: float = 0.0
    """When a hint may start the next round."""
    running: bool = False
    woken: bool = False
    """Whether a hint came since the last round began."""
    gone: bool = False
    chain: Chain | None = None
    sweep: Sweep | None = None
    then: Then | None = None
    hinted: set[str] = field(default_factory=set)
    """Keys that were announced and are not known to be planned."""
    reason: str = ""
    told: WatchState | None = None


@dataclass(eq=False)
class Keeper:
    """The watches of one controller; `begin` starts it."""

    backend: Backend
    settings: Settings
    hints: Hints
    afterwards: Sequence[Afterwards] = ()
    name: str = ""
    clock: Callable[[], float] = time.time
    _kept: dict[str, _Kept] = field(default_factory=dict)
    _read: dict[str, tuple[str, Watch | None]] = field(default_factory=dict)
    """The records by name, each with the etag that it had."""
    _looked: bool = False
    _wake: threading.Condition = field(default_factory=threading.Condition)
    _closing: threading.Event = field(default_factory=threading.Event)
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_THREADS, "watch"))
    _thread: threading.Thread | None = None

    def begin(self, name: str) -> None:
        """Start to keep watches as the controller `name`; one that is started again has its own watches at once."""
        self.name = name
        self._thread = threading.Thread(target=self._loop, name="watches", daemon=True)
        self._thread.start()
        threading.Thread(target=self._listen, name="hints", daemon=True).start()

    def watches(self) -> list[Watch]:
        """Return all watches of the bucket, also those that others keep, as they were last read; from any thread.

        Raises ServiceUnavailable before the first look: an empty list would say that nobody wants an event.
        """
        if not self._looked:
            raise ServiceUnavailable("This controller is starting and has not read its watches yet.")
        return [watch for _, watch in list(self._read.values()) if watch is not None]

    def leave(self) -> None:
        """Begin no more rounds."""
        self._closing.set()
        with self._wake:
            self._wake.notify_all()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """Wait a little for the rounds under way, and let other controllers have the watches at once."""
        self.leave()
        for one in self.afterwards:
            one.close()
        if self._thread is not None:
            self._thread.join(_LOOK_SECONDS + 1)
        claims.leave(self.backend.ledger, self.name, list(self._kept))

    # The loop

    def _loop(self) -> None:
        look = 0.0
        while not self._closing.is_set():
            now = time.monotonic()
            if now >= look:
                try:
                    self.look()
                except ImagemillError as error:
                    log.warning("Watches wait: %s", error)
                except Exception:
                    log.exception("Watches wait")
                look = time.monotonic() + _LOOK_SECONDS
            with self._wake:
                now = time.monotonic()
                for kept in self._kept.values():
                    if not kept.running and kept.due <= now:
                        self._start(kept)
                due = min((kept.due for kept in self._kept.values() if not kept.running), default=look)
                self._wake.wait(max(0.0, min(due, look) - time.monotonic()))

    def _listen(self) -> None:
        with closing(Ledger(self.settings, patience=_PATIENCE)) as ledger:
            told = Told(ledger)
            while not self._closing.is_set():
                try:
                    names = told.wait(_LOOK_SECONDS)
                except ImagemillError as error:
                    log.info("Hints wait for the next round of their watches: %s", error)
                    self._closing.wait(_RETRY_SECONDS)
                except Exception:
                    log.exception("Hints wait for the next round of their watches")
                    self._closing.wait(_RETRY_SECONDS)
                else:
                    if names:
                        self.wake(names)
                        self._closing.wait(_GATHER_SECONDS)

    def wake(self, names: Iterable[str]) -> None:
        """Look at watches for which something was announced as soon as their pace allows; from any thread."""
        with self._wake:
            for name in names:
                kept = self._kept.get(name)
                if kept is not None and not kept.watch.paused:
                    kept.woken = True
                    self._hurry(kept)
            self._wake.notify_all()

    def _hurry(self, kept: _Kept) -> None:
        # One that waits for a server, or for earlier segments, waits on.
        if kept.woken and not kept.running and not kept.reason:
            kept.due = min(kept.due, kept.soonest)

    def _start(self, kept: _Kept) -> None:
        if not self._closing.is_set():
            kept.running, kept.woken = True, False
            self._pool.submit(self._run, kept)

    def look(self) -> None:
        """Read the records that changed, renew the claims, retire what was removed, and tell how watches stand."""
        before = set(self._read) if self._looked else set(read_states(self.backend.ledger))
        watches, folders = self._records()
        gone, self._looked = before - set(self._read), True
        mine = set(claims.share(self.backend.ledger, self.name, sorted(watches)))
        with self._wake:
            for name, kept in list(self._kept.items()):
                if name not in mine or watches[name] != kept.watch:
                    kept.gone = True  # a round that is under way harms nothing
                    del self._kept[name]
                    self.hints.drop(name)
            fresh = [name for name in sorted(mine) if name not in self._kept]
            for name in fresh:
                self._kept[name] = _Kept(watches[name])
        for name in fresh:
            if name in folders:
                self._retire(name, watches[name].stamp)
        for name in sorted(folders - set(self._read)):
            self._retire(name, None)
        for one in self.afterwards:
            one.follow([watches[name] for name in sorted(mine)])
        self._tell(sorted(gone))

    def _records(self) -> tuple[dict[str, Watch], set[str]]:
        """Return all watches by name, and the names that something was written for."""
        store, there, folders = self.backend.store, dict[str, str](), set[str]()
        for entry in store.list(WATCHES, folders=True):
            if (name := parse_watch(entry.key)) is not None:
                there[name] = f"{entry.etag} {entry.modified}"
            elif entry.key.endswith("/"):
                folders.add(entry.key.removeprefix(WATCHES).rstrip("/"))
        self._read = {name: was for name, was in self._read.items() if name in there}
        for name, version in there.items():
            if self._read.get(name, ("", None))[0] != version:
                self._read[name] = version, self._parse(name)
        return {name: watch for name, (_, watch) in self._read.items() if watch is not None}, folders

    def _parse(self, name: str) -> Watch | None:
        try:
            return Watches(self.backend.store).get(name)
        except (InvalidWatch, UnknownWatch) as error:
            log.warning("%s", error)
            return None

    def _retire(self, name: str, stamp: str | None) -> None:
        for root in leftovers(self.backend, name, stamp):
            if self.backend.ledger.once_in(_RETRY_SECONDS, f"retire:{root}"):
                log.info("The watch %s was removed; its open segment is ended", name)
                retire(self.backend, root)

    def _tell(self, gone: list[str]) -> None:
        with self._wake:
            # One that was not loaded yet would be told to have planned nothing.
            known = [kept for kept in self._kept.values() if not kept.running and (kept.chain or kept.reason)]
            states = [(kept, self._state(kept)) for kept in known]
        fresh = [(kept, state) for kept, state in states if _news(kept.told, state)]
        if fresh or gone:
            write_states(self.backend.ledger, [state for _, state in fresh], gone)
        for kept, state in fresh:
            kept.told = state

    def _state(self, kept: _Kept) -> WatchState:
        watch, chain, sweep = kept.watch, kept.chain, kept.sweep
        figures = {name: value for one in self.afterwards for name, value in one.figures(watch).items()}
        return WatchState(
            name=watch.name,
            stamp=watch.stamp,
            controller=self.name,
            at=self.clock(),
            every=watch.every,
            paused=watch.paused,
            swept_at=sweep.swept_at if sweep else 0.0,
            planned=chain.planned if chain else 0,
            pending=sweep.pending if sweep else 0,
            oldest=sweep.oldest if sweep else None,
            jobs=tuple(chain.jobs) if chain else (),
            reason=kept.reason,
            **figures,
        )

    # One round

    def _run(self, kept: _Kept) -> None:
        began = time.monotonic()
        try:
            wait, kept.reason = self._round(kept)
        except ServiceUnavailable as error:
            wait, kept.reason = _RETRY_SECONDS, str(error)
        except ImagemillError as error:
            log.warning("The watch %s waits: %s", kept.watch.name, error)
            wait, kept.reason = _RETRY_SECONDS, str(error)
            kept.chain = kept.sweep = None
        except Exception as error:
            log.exception("The watch %s waits", kept.watch.name)
            wait, kept.reason = _RETRY_SECONDS, f"{type(error).__name__}: {str(error)[:200]}; see the controller's log."
            kept.chain = kept.sweep = None
        with self._wake:
            kept.due, kept.running = began + wait, False
            kept.soonest = began + _pace(kept.watch.every, time.monotonic() - began)
            self._hurry(kept)
            self._wake.notify_all()

    def _round(self, kept: _Kept) -> tuple[float, str]:
        """Do one round; return the seconds from its begin to the next, and why it did not plan everything."""
        watch = kept.watch
        if kept.chain is None:
            chain = Chain(self.backend, self.settings, watch)
            chain.load()
            kept.chain = chain
        if watch.then:
            kept.then = kept.then or Then(self.backend, watch)
            kept.then.round()
        if watch.paused:
            kept.chain.announce()
            kept.chain.close_if_due(self.clock())
            return _PAUSED_SECONDS, ""
        if kept.sweep is None:
            full = self.settings.watch_sweep_seconds
            kept.sweep = Sweep(self.backend.store, watch, kept.chain, full_seconds=full, clock=self.clock)
        kept.hinted.update(self.hints.take(watch.name))
        outcome = kept.sweep.round(_SLICE_SECONDS, kept.hinted)
        if outcome == "planned":
            self.hints.settle(watch.name)
            kept.hinted.clear()
            return watch.every, ""
        if outcome == "more":
            return 0.0, ""
        return _FULL_SECONDS, f"Earlier segments must end first: {', '.join(kept.chain.jobs)}."


def _pace(every: float, took: float) -> float:
    """Return the seconds from the begin of a round, which took so long, to one that a hint starts."""
    return min(every, max(_HINTED_SECONDS, _HINTED_SHARE * every, _HINTED_DUTY * took))


def _news(told: WatchState | None, now: WatchState) -> bool:
    """Whether Redis must be told how a watch stands: at once if that has changed, else now and then."""
    if told is None or now.at - told.at >= _TELL_SECONDS:
        return True
    return now.model_copy(update={"at": told.at, "swept_at": told.swept_at}) != told


def make_keeper(resources: Resources) -> Keeper:
    """Return what keeps watches in a controller; a server that is away is asked again at the next round."""
    settings = resources.settings
    store, ledger = ObjectStore(settings, patience=_PATIENCE), Ledger(settings, patience=_PATIENCE)
    return Keeper(
        Backend(store, ledger, resources.backend.queues),
        settings,
        Hints(ledger),
        [Tables(store, settings), Archives(store, settings)],
    )
