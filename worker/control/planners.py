"""Plans jobs in child processes: several at once, in turn, each within limits of memory and of time without progress.

Children are forked from a server process that has imported everything once, so that one costs some 20 ms. Where more
jobs wait than may run, the one that was planned least goes next, and a long plan makes room: it goes on later behind
its last shard. So a new job waits for seconds at most, whatever the others' sources are.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Literal

from contract.backend.lock import Lock
from contract.data.children.process import ending
from contract.errors import ImagemillError, ServiceUnavailable
from contract.instruments import PLAN_SECONDS
from contract.jobs.ends import read_standing
from contract.jobs.lifecycle import Backend, close, read_created, read_spec
from contract.settings import Settings
from contract.telemetry import logs, traces
from worker.control import plan_child
from worker.control.plan_attempts import PlanAttempts, read_attempts, write_attempts
from worker.execution.resources import Resources

log = logging.getLogger(__name__)

_SLICE_SECONDS = 1.0
"""A plan runs at least this long before it makes room, and then twice as long as before."""
_STOP_SECONDS = 10.0
"""A planner that is asked to stop does so between two requests; one that takes longer hangs."""
_LOOK_SECONDS = 0.25
_START_BYTES = 160 * 2**20
"""What a planner takes before it reads anything, with pages that it shares; watched where the system has no limit."""

Ending = Literal["done", "later", "paused", "bad"]


@dataclass(eq=False)
class _Job:
    """A job that waits for its planner, or has one."""

    id: str
    order: int
    spent: float = 0.0
    """Seconds that its planners ran."""
    begun: float = 0.0
    asked: float | None = None
    """When its planner was asked to make room."""
    reason: str = ""
    reading: str = ""

    @property
    def seconds(self) -> float:
        return self.spent + (time.monotonic() - self.begun if self.begun else 0.0)


@dataclass(eq=False)
class Planners:
    """The planners of one controller. `serve` runs in the child; `close` ends all of them."""

    backend: Backend
    settings: Settings
    serve: Callable[[Settings, str, Connection], None] = plan_child.serve
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _waiting: dict[str, _Job] = field(default_factory=dict)
    _running: dict[str, _Job] = field(default_factory=dict)
    _threads: set[threading.Thread] = field(default_factory=set)
    _closing: threading.Event = field(default_factory=threading.Event)
    _number: int = 0

    def plan(self, job: str) -> None:
        """Plan a job as soon as it is its turn; do nothing if it waits or is planned here already."""
        with self._lock:
            if self._closing.is_set() or job in self._running or job in self._waiting:
                return
            self._number += 1
            self._waiting[job] = _Job(job, self._number)
            self._start()

    def warm_up(self) -> None:
        """Start the process that planners are forked from, and return without waiting for it."""
        threading.Thread(target=self._warm_up, name="warm planners", daemon=True).start()

    def leave(self) -> None:
        """Take no more jobs, and ask the planners to stop."""
        self._closing.set()

    def close(self) -> None:
        """End all planners; another controller goes on behind their last shards."""
        self.leave()
        for thread in list(self._threads):
            thread.join(_STOP_SECONDS + 1)

    def _warm_up(self) -> None:
        with suppress(OSError):
            process = self._context.Process(target=str, daemon=True)
            process.start()
            process.join()

    @cached_property
    def _context(self) -> ForkServerContext:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(plan_child.PRELOAD)
        return context

    # Turns

    def _start(self) -> None:
        """Give a process to the jobs whose turn it is, unless this controller leaves; the lock is held."""
        while self._waiting and not self._closing.is_set() and len(self._running) < self.settings.plan_processes:
            job = min(self._waiting.values(), key=lambda one: (one.spent, one.order))
            del self._waiting[job.id]
            self._running[job.id] = job
            job.begun, job.asked = time.monotonic(), None
            run = logs.scope(job=job.id)(self._run)
            thread = threading.Thread(target=run, args=(job,), name=f"plan {job.id}", daemon=True)
            self._threads.add(thread)
            thread.start()

    def _run(self, job: _Job) -> None:
        again = False
        try:
            again = self._attempt(job)
        except ServiceUnavailable as error:
            log.warning("The plan of %s waits for the reconciler: %s", job.id, error)
        except ImagemillError as error:
            log.error("%s is not planned: %s", job.id, error)
        except Exception:
            log.exception("%s is not planned", job.id)
        finally:
            with self._lock:
                job.spent, job.begun = job.seconds, 0.0
                del self._running[job.id]
                self._threads.discard(threading.current_thread())
                if again and not self._closing.is_set():
                    self._waiting[job.id] = job
                self._start()

    def _makes_room(self, job: _Job) -> bool:
        """Whether a plan should stop for one that was planned much less."""
        if self._closing.is_set():
            return True
        with self._lock:
            asked = sum(one.asked is not None for one in self._running.values())
            waiting = sorted(one.spent for one in self._waiting.values())
        return asked < len(waiting) and 2 * waiting[asked] + _SLICE_SECONDS <= job.seconds

    # One attempt

    def _attempt(self, job: _Job) -> bool:
        """Run a planner; return whether the job needs another one."""
        store = self.backend.store
        with self.backend.ledger.lock("plan", job.id, self.settings.lease_seconds) as lock:
            state = self.backend.ledger.state(job.id)
            if lock is None or state not in ("queued", "planning"):
                return False
            before = read_attempts(store, job.id, read_standing(store, job.id).run)
            if before.attempts >= self.settings.max_attempts:
                self._give_up(job, before)
                return False
            # Counted before it begins: a controller that dies with its planner leaves the count.
            now = before.model_copy(update={"attempts": before.attempts + 1})
            write_attempts(store, job.id, now)
            began = time.monotonic()
            try:
                with traces.span("plan", job.id, lambda: read_created(store, job.id), attempt=now.attempts):
                    ending = self._watch(job, lock)
                    traces.note(outcome=ending)
                    if ending == "bad":
                        traces.fail(job.reason)
            except Exception:  # no process could be made: a fault of this machine
                write_attempts(store, job.id, before)
                raise
            if ending == "bad":
                log.warning("Attempt %d at planning %s: %s", now.attempts, job.id, job.reason)
                now = now.model_copy(update={"reason": job.reason})
                if now.attempts >= self.settings.max_attempts:
                    self._give_up(job, now)
                    return False
                write_attempts(store, job.id, now)
            else:
                # Also when it is done: the reconciler has a training planned again and again until a worker begins it.
                write_attempts(store, job.id, before)
            if ending == "done":
                PLAN_SECONDS.observe(time.monotonic() - began, self.backend.ledger.kind(job.id) or "")
            return ending in ("bad", "paused")

    def _give_up(self, job: _Job, found: PlanAttempts) -> None:
        label = read_spec(self.backend.store, job.id).source.label
        why = found.reason or "its controller ended each time"
        reason = f"{label} could not be planned in {found.attempts} attempts: {why}"
        close(self.backend, job.id, "failed", reason, run=found.run)

    def _watch(self, job: _Job, lock: Lock) -> Ending:
        """Run the child until it ends, or is ended; after "bad", `job.reason` says why."""
        pipe, theirs = self._context.Pipe(duplex=False)
        process = self._context.Process(target=self.serve, args=(self.settings, job.id, theirs), daemon=True)
        try:
            with theirs:
                process.start()
            return self._follow(job, lock, process, pipe)
        finally:
            process.kill()
            process.join()
            pipe.close()

    def _follow(self, job: _Job, lock: Lock, process: ForkServerProcess, pipe: Connection) -> Ending:
        seen = time.monotonic()
        limit = self.settings.plan_memory_mb
        memory = f"took more than {limit:,} MB of memory; correct that object, or raise IMAGEMILL_PLAN_MEMORY_MB."
        while True:
            said = b""
            if pipe in wait([pipe], _LOOK_SECONDS):
                try:
                    said = pipe.recv_bytes()
                except (EOFError, OSError):
                    return self._died(job, process)
                seen = time.monotonic()
            match said[:1]:
                case plan_child.DONE:
                    return "done"
                case plan_child.LATER:
                    return "paused" if job.asked is not None else "later"
                case plan_child.MEMORY:
                    return self._bad(job, memory)
                case plan_child.STEP:
                    job.reading = said[1:].decode(errors="replace")
            now = time.monotonic()
            if not lock.held:
                return "later"  # another controller plans it
            if _resident(process.pid) > limit * 2**20 + _START_BYTES:
                return self._bad(job, memory)
            if now - seen > self.settings.plan_stall_seconds:
                return self._bad(job, f"made no progress for {now - seen:.0f} s; correct that object.")
            if job.asked is None and self._makes_room(job):
                job.asked = now
                process.terminate()
            elif job.asked is not None and now - max(seen, job.asked) > _STOP_SECONDS:
                return self._bad(
                    job, f"made no progress for {now - seen:.0f} s, while others waited; correct that object."
                )

    def _died(self, job: _Job, process: ForkServerProcess) -> Ending:
        process.join(_STOP_SECONDS)
        # A signal to the whole group ends the child and this process, in any order.
        if self._closing.wait(0.5):
            return "later"
        code = process.exitcode
        if job.asked is not None and code == -signal.SIGTERM:
            return "paused"  # it was asked to make room before it could listen
        if code is not None and code < 0:
            how = f"was ended by {ending(code)}, perhaps for want of memory"
        else:
            how = f"ended with exit status {code}"
        return self._bad(job, f"{how}; correct that object, or see the controller's log.")

    @staticmethod
    def _bad(job: _Job, what: str) -> Ending:
        job.reason = f"the planner, reading {job.reading or 'its first object'}, {what}"
        return "bad"


def make_planners(resources: Resources) -> Planners:
    """Return the planners of a controller."""
    return Planners(resources.backend, resources.settings)


def _resident(pid: int | None) -> int:
    """Return the bytes of memory that a process uses now, or 0 where that is not known."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
    except (OSError, IndexError):
        return 0
