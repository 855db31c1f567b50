"""Does something with each segment of a watch once its job has ended: one at a time, in a child process.

A child, because Arrow takes memory that a controller does not have, and gives none of it back.
"""

from __future__ import annotations

import logging
import multiprocessing
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from typing import ClassVar

from contract.backend.objects import ObjectStore
from contract.data.children.limits import die_with_parent, no_core_dump
from contract.errors import ImagemillError, ServiceUnavailable
from contract.jobs.ends import read_standing
from contract.keys.jobs import JobKeys
from contract.settings import Settings
from contract.telemetry import logs
from contract.watches.record import Watch
from contract.watches.segments import segment_numbers

log = logging.getLogger(__name__)

_LOOK_SECONDS = 30.0
_AGAIN_SECONDS = 600.0
"""Until a segment is tried again that failed; one that waits is tried sooner, after twice as long each time."""
_NEVER = float("inf")
DONE, LATER, FAILED = 0, 3, 4
Serve = Callable[[Settings, str, int, str, int], None]
"""Do it for one segment: settings, what `Afterwards.of` says, the segment, its job, the run of the job."""


def in_child(settings: Settings, what: str, job: str, work: Callable[[ObjectStore], str]) -> None:
    """Run `work`, which returns a line for the log, in a process of its own; exit with DONE, LATER or FAILED."""
    die_with_parent()
    no_core_dump()
    logs.set_up(settings.log, logging.INFO, f"[%(asctime)s: %(levelname)s/{what}] %(message)s")
    logs.tell_always(job=job)
    try:
        log.info("%s", work(ObjectStore(settings, patience=30.0)))
    except ServiceUnavailable as error:
        log.info("The %s of %s waits: %s", what, job, error)
        raise SystemExit(LATER) from None
    except ImagemillError as error:
        log.warning("The %s of %s has failed: %s", what, job, error)
        raise SystemExit(FAILED) from None


@dataclass(eq=False)
class Afterwards(ABC):
    """What follows the segments of the watches that one controller keeps."""

    what: ClassVar[str]
    """Its name, in logs."""

    store: ObjectStore
    settings: Settings
    serve: Serve
    _watches: Sequence[Watch] = ()
    _again: dict[str, float] = field(default_factory=dict)
    """When a job is tried again, by the monotonic clock."""
    _pauses: dict[str, float] = field(default_factory=dict)
    """For how many seconds a job that waits was left alone last."""
    _waiting: dict[str, int] = field(default_factory=dict)
    """Segments of each watch, by its folder, whose jobs had ended at the last look and for which it was not done."""
    _closing: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    @abstractmethod
    def of(self, watch: Watch) -> str:
        """Return what `serve` must know of a watch, "" if there is nothing to do for it."""

    @abstractmethod
    def done(self, watch: Watch) -> set[int]:
        """Return the segments for which it was done."""

    def figures(self, watch: Watch) -> dict[str, int]:
        """Return fields of `WatchState` that say how far it is."""
        return {}

    def waiting(self, watch: Watch) -> int:
        """Return the segments whose jobs have ended and for which it is not done, as of the last look."""
        return self._waiting.get(watch.root, 0)

    def follow(self, watches: Sequence[Watch]) -> None:
        """Do it for these watches from now on; return at once."""
        self._watches = [watch for watch in watches if self.of(watch)]
        if self._thread is None and self._watches:
            self._thread = threading.Thread(target=self._loop, name=self.what, daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Do nothing more; a child that is at work is ended, and another controller starts over."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(5)

    def look(self, watch: Watch) -> None:
        """Do it for the segments of a watch whose jobs have ended and for which it was not done."""
        of, waiting = self.of(watch), 0
        for number in self._left(watch) if of else ():
            job = watch.job(number)
            again = self._again.get(job, 0.0)
            if self._closing.is_set() or time.monotonic() < again:
                waiting += again != _NEVER
                continue
            standing = read_standing(self.store, job)
            if standing.end is None:
                if not self.store.exists(JobKeys(job).spec):  # no job, or one that was deleted
                    self._again[job] = _NEVER
                continue
            code = self._run(of, number, job, standing.run)
            waiting += code != DONE
            self._rest(job, code)
        self._waiting[watch.root] = waiting

    def _rest(self, job: str, code: int | None) -> None:
        """Leave a job alone for a while whose child has ended with `code`, other than DONE."""
        before = self._pauses.pop(job, 0.0)
        self._again.pop(job, None)
        if code == DONE:
            return
        pause = min(_AGAIN_SECONDS, 2 * before or _LOOK_SECONDS) if code == LATER else _AGAIN_SECONDS
        if pause == _AGAIN_SECONDS:
            log.warning(
                "The %s of %s waits and is tried every %.0f s: its process ended with %s", self.what, job, pause, code
            )
        self._pauses[job], self._again[job] = pause, time.monotonic() + pause

    def _left(self, watch: Watch) -> Iterator[int]:
        if numbers := segment_numbers(self.store, watch.root):
            yield from sorted(set(numbers) - self.done(watch))

    def _run(self, of: str, segment: int, job: str, run: int) -> int | None:
        """Do it for a segment; return the exit code of the child."""
        context = multiprocessing.get_context("forkserver")
        child: BaseProcess = context.Process(
            target=self.serve, args=(self.settings, of, segment, job, run), name=f"{self.what} {job}", daemon=True
        )
        child.start()
        while child.exitcode is None:
            child.join(0.5)
            if self._closing.is_set():
                child.terminate()
        return child.exitcode

    def _loop(self) -> None:
        while not self._closing.wait(_LOOK_SECONDS):
            for watch in self._watches:
                try:
                    self.look(watch)
                except ImagemillError as error:
                    log.info("The %s of %s waits: %s", self.what, watch.name, error)
                except Exception:
                    log.exception("The %s of %s waits", self.what, watch.name)
