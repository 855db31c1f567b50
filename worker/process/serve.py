"""One worker process: it serves messages, sends heartbeats, and leaves if it cannot work reliably.

It knows no kind of job: `contract.jobs.kinds` says what runs one. The controller uses `backend` alone, so torch is
never imported there.
"""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from celery import Celery

from contract.backend.broker import Queues
from contract.backend.ledger import Ledger, Step
from contract.backend.objects import ObjectStore
from contract.errors import ImagemillError, InvalidInput, JobFailed, ServiceUnavailable, WorkerUnfit
from contract.import_paths import load
from contract.jobs.kinds import KINDS, JobKind, kind_of
from contract.jobs.lifecycle import Backend, read_spec
from contract.keys import QUEUE_GENERATE, QUEUE_TRAIN
from contract.settings import Settings
from worker.engine.budget import set_total
from worker.execution.health import Health
from worker.execution.resources import Resources

if TYPE_CHECKING:
    from worker.execution.job_runner import JobRunner, ShardWork
    from worker.execution.leases import Lease

log = logging.getLogger(__name__)

EXIT_STALLED = 70
"""A worker's shard made no progress for `IMAGEMILL_STALL_SECONDS`; start the worker again."""
EXIT_AFRESH = 71
"""A known good image failed on a worker, or a shard that failed on it needs another process; start the worker again."""
EXIT_UNFIT = 72
"""A worker cannot load its own code, as after an upgrade in place; start the worker again."""
RUNS_MODELS = {kind.queue for kind in KINDS.values()}
"""The queues of shards."""
_BEAT_SECONDS = 2.0
_BEAT_TTL = 15.0
_TESTS = (1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds between two self-tests of a worker that fails them; after the last one it leaves."""
_PAUSE_SECONDS = 1.0
"""Before a message that this worker does not serve now goes back to its queue."""
_START_SECONDS = 120.0
"""How long a shard waits, at most, for the first self-test, which loads a model."""


class Process:
    """One worker process: it runs shards, finishes jobs, sends heartbeats, and leaves if it cannot work reliably."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self.settings = settings
        self.memory = set_total(settings.memory)
        self.backend = Backend(
            ObjectStore(settings, patience=settings.store_patience_seconds),
            Ledger(settings, patience=30.0),
            Queues(app),
        )
        self.resources = Resources(self.backend, settings, f"worker@{socket.gethostname()}-{os.getpid()}")
        self.health = self.resources.health = Health(self._test, self._leave_afresh, self.resources.leaving)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._tested = threading.Event()
        self._tested.set()  # until `start`
        self._queues: list[str] = []
        self.exit_code = 0

    def start(self, name: str, queues: list[str]) -> None:
        """Start heartbeats, load the built-in model if this worker runs classify shards, and test this process."""
        self.resources.name, self._queues = name, queues
        self._tested.clear()
        threading.Thread(target=self._live, name="heartbeat", daemon=True).start()

    def run(self, job: str, shard: int) -> None:
        """Run a shard of a job.

        If the code for it cannot be loaded, that is a fault of the job, so that one which no worker can run ends; and
        this worker leaves, since an upgrade in place may have left it with modules of two versions.
        """
        name = self.backend.ledger.kind(job)
        if name is None:
            log.info("Redis has lost %s; the reconciler rebuilds it", job)
            return
        self._tested.wait(_START_SECONDS)
        if self.health.unfit or self.resources.leaving.is_set():
            self._send_back(name, job, shard)
            return
        try:
            kind = kind_of(name)
        except InvalidInput:  # a newer version made the job
            self._refuse(name, job, shard, f"jobs of kind {name} are unknown", "upgrade Imagemill")
            return
        try:
            work, runner = self._work(kind), self.resources.once(_make_runner)
        except Exception as error:  # mismatched modules fail in any way
            if self.unfit(error):  # a redelivery is not a second attempt
                why = f"what runs a job of kind {name} cannot be loaded ({type(error).__name__}: {error})"
                self._refuse(name, job, shard, why, "install Imagemill anew")
        else:
            runner.run(kind, work, job, shard)

    def finish(self, job: str) -> None:
        """Run the worker's part of finishing a job: end it, or write its page."""
        try:
            kind = kind_of(read_spec(self.backend.store, job))
            if kind.finish is None:
                raise InvalidInput(f"A job of kind {kind.name} is not finished on a worker.")
            finish: Callable[[str], None] = self.resources.once(load(kind.finish))
        except ImagemillError as error:
            log.warning("%s is not finished: %s", job, error)
        except ImportError as error:
            self.unfit(error)  # the message is resent, to a worker that can
        else:
            finish(job)

    def unfit(self, error: Exception) -> bool:
        """Have Celery end this process after its running shards, because it cannot load its code.

        Return False if it is leaving already. Whatever started the process starts it again.
        """
        from celery.worker import state

        with self._lock:
            known, self.exit_code = bool(self.exit_code), EXIT_UNFIT
        if not known:
            log.critical("Leaving, because the code of this worker cannot be loaded", exc_info=error)
            self.leave()
            state.should_stop = EXIT_UNFIT
        return not known

    def leave(self) -> None:
        """Take nothing new, and let running shards end, except trainings, which another worker continues.

        From now on the death of this process counts against nothing. A signal handler may call it.
        """
        self.resources.leaving.set()
        if (renewer := self.resources.renewer_made()) is not None:
            renewer.notice(self.settings.leave_seconds)

    def stop(self) -> None:
        self._stop.set()
        try:
            self.backend.ledger.leave(self.resources.name)
        except ServiceUnavailable:
            log.info("Redis does not answer; the heartbeat expires")
        self.resources.close()

    def warm_up(self) -> None:
        """Publish missing built-in models, and load the default one before a shard needs it."""
        from contract.models.registry import Registry
        from worker.zoo import builtin

        self._work(kind_of("classify"))  # code that cannot be loaded is found before a shard is taken
        self.backend.store.ensure_bucket()
        registry = Registry(self.backend.store)
        for (name, version), make in builtin.models().items():
            if not registry.exists(name, version):
                registry.publish(*make(), ships=True)
        with self.resources.models.use(f"{builtin.NAME}@{builtin.VERSION}", "auto"):
            pass

    def _work(self, kind: JobKind) -> ShardWork[Any]:
        work: ShardWork[Any] = self.resources.once(load(kind.run))
        return work

    def _refuse(self, kind: str, job: str, shard: int, why: str, remedy: str) -> None:
        """Count a fault of a shard that this worker cannot run; the last one ends the job."""
        from worker.execution.runner import Host, Runner

        name = self.resources.name

        def refuse(lease: Lease) -> Step:
            tries = lease.trouble.faults + 1
            if tries >= self.settings.max_attempts:
                raise JobFailed(
                    f"On {tries} workers, the last one {name}, {why}; {remedy} there, restart them, then "
                    f"`imagemill resume {job}`."
                )
            raise WorkerUnfit(f"On {name} {why}.")

        Runner(kind, Host.of(self.resources), refuses=True).run(job, shard, refuse)

    def _live(self) -> None:
        if "classify" in self._queues:
            try:
                self.warm_up()
            except ImagemillError as error:
                # A shard will meet the same error and report it to the user.
                log.error("The built-in model could not be loaded: %s", error)
            except ImportError as error:
                self.unfit(error)
            except Exception:
                log.exception("The built-in model could not be loaded")
        told = {"started_at": f"{time.time():.3f}", "process": self.resources.process, **self._capabilities()}
        pauses = list(_TESTS)
        test_at: float | None = time.monotonic()
        while True:
            if test_at is not None and time.monotonic() >= test_at:
                test_at = self._prove(pauses)
            try:
                self.backend.ledger.beat(self.resources.name, _BEAT_TTL, **told, **self._vitals())
            except ServiceUnavailable as error:
                log.warning("No heartbeat: %s", error)
            self._watch()
            if self._stop.wait(_BEAT_SECONDS):
                return

    def _prove(self, pauses: list[float]) -> float | None:
        """Test this process before it takes a shard; return when to test again if it fails, None if that is over."""
        try:
            self.health.check()
        except WorkerUnfit as error:
            log.critical("%s", error)
            if pauses:
                return time.monotonic() + pauses.pop(0) * random.uniform(0.75, 1.25)
            self.health.leave(self.health.unfit)
        finally:
            self._tested.set()
        return None

    def _test(self) -> None:
        """Run known good input through what this process computes with; raise what goes wrong."""
        resources = self.resources
        if (models := resources.models_made()) is not None:
            from worker.zoo import builtin

            models.check(f"{builtin.NAME}@{builtin.VERSION}")
        trains = {QUEUE_TRAIN, QUEUE_GENERATE} & set(self._queues)
        if (device := resources.device if trains else resources.device_made()) is not None:
            from worker.engine.canary import check_device

            check_device(device)

    def _leave_afresh(self, why: str) -> None:
        """Give every shard back and end this process, to be started again by whatever started it."""
        from celery.worker import state

        with self._lock:
            known, self.exit_code = bool(self.exit_code), self.exit_code or EXIT_AFRESH
        if known:
            return
        log.critical("Leaving, to be started again: %s", why)
        self.leave()
        state.should_stop = EXIT_AFRESH
        if self.health.unfit:
            # What hangs on a broken device never ends by itself.
            timer = threading.Timer(self.settings.leave_seconds + _BEAT_SECONDS, os._exit, (EXIT_AFRESH,))
            timer.daemon = True
            timer.start()

    def _send_back(self, kind: str, job: str, shard: int) -> None:
        """Send a message back that this worker does not serve now, for another one."""
        log.info("Shard %d of %s is left to another worker: this one %s", shard, job, self.health.unfit or "is leaving")
        self.resources.leaving.wait(_PAUSE_SECONDS)
        try:
            self.backend.queues.run(kind, job, [shard])
        except ImagemillError as error:  # the reconciler sends it
            log.info("%s", error)

    def _capabilities(self) -> dict[str, str]:
        """Return what this worker can compute on and in, for its heartbeat; nothing if it runs no models."""
        if not RUNS_MODELS & set(self._queues):
            return {}
        from worker.execution.capabilities import of_this_process

        try:
            return self.resources.once(of_this_process).heartbeat()
        except (ImagemillError, ImportError) as error:
            log.error("What this worker can compute in is not known: %s", error)
            return {}

    def _vitals(self) -> dict[str, str | int]:
        vitals: dict[str, str | int] = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "queues": ",".join(self._queues),
            "unfit": self.health.unfit or ("it is leaving" if self.resources.leaving.is_set() else ""),
        }
        if (models := self.resources.models_made()) is not None:
            runtimes = models.runtimes()
            vitals["models"] = ",".join(runtimes)
            vitals["device"] = ",".join(sorted({r.device for r in runtimes.values()}))
            vitals["runtime"] = ",".join(sorted({f"{r.name}/{r.precision}" for r in runtimes.values()}))
        if (renewer := self.resources.renewer_made()) is not None:
            vitals["shards"] = len(renewer.held())
        return vitals

    def _watch(self) -> None:
        """Leave if a shard has made no progress for too long; whatever started this process starts it again."""
        renewer = self.resources.renewer_made()
        for lease in renewer.held() if renewer is not None else ():
            idle = time.monotonic() - (lease.progress_at or time.monotonic())
            if self.memory.busy:  # a shard that waits its turn is not stuck as long as images come and go
                idle = min(idle, self.memory.idle_for())
            if idle > self.settings.stall_seconds:
                log.critical("Shard %d of %s has made no progress for %.0f s; leaving", lease.shard, lease.job, idle)
                os._exit(EXIT_STALLED)


def _make_runner(resources: Resources) -> JobRunner:
    from worker.execution.capabilities import Fit, of_this_process
    from worker.execution.job_runner import JobRunner
    from worker.execution.runner import Host

    settings = resources.settings
    fit = Fit(
        resources.backend, resources.once(of_this_process), resources.leaving, wait_seconds=settings.worker_wait_seconds
    )
    return JobRunner(Host.of(resources), fit)
