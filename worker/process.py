"""What one worker process holds: connections, leases, models; its heartbeat and its watchdog.

The controller takes `backend` and nothing more, so torch is never imported there.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from functools import cached_property, partial
from typing import TYPE_CHECKING, Protocol

from celery import Celery

from contract.backend.broker import Queues
from contract.backend.ledger import Ledger, Step
from contract.backend.objects import ObjectStore
from contract.errors import ImagemillError, JobFailed, ServiceUnavailable, WorkerUnfit
from contract.jobs.lifecycle import Backend
from contract.settings import Settings
from worker.engine.cores import cores

if TYPE_CHECKING:
    from worker.classify.shard import ShardRunner
    from worker.datasets.reader import DatasetReader
    from worker.evaluation.job import EvaluateRunner
    from worker.execution.leases import Lease, LeaseRenewer
    from worker.generation.finalize_images import ImagesFinalizer
    from worker.generation.shard import GenerateRunner
    from worker.generation.verify import VerifyRunner
    from worker.sources.fetch import Fetcher
    from worker.training.job import TrainRunner

    class _Runs(Protocol):
        def run(self, job: str, shard: int) -> None: ...


log = logging.getLogger(__name__)

EXIT_STALLED = 70
EXIT_UNFIT = 72
_BEAT_SECONDS = 2.0
_BEAT_TTL = 15.0


class Process:
    """Built once a process, each part when it is first needed."""

    def __init__(self, app: Celery, settings: Settings) -> None:
        self.settings = settings
        self._app = app
        self._lock = threading.RLock()
        self._runner: ShardRunner | None = None
        self._trainer: TrainRunner | None = None
        self._generator: GenerateRunner | None = None
        self._stop = threading.Event()
        self._leaving = threading.Event()
        self._training = threading.Lock()
        self.exit_code = 0
        self._name = f"worker@{socket.gethostname()}-{os.getpid()}"
        self._queues: list[str] = []

    @cached_property
    def backend(self) -> Backend:
        settings = self.settings
        return Backend(
            ObjectStore(settings, patience=settings.store_patience_seconds),
            Ledger(settings, patience=30.0),
            Queues(self._app),
        )

    @property
    def runner(self) -> ShardRunner:
        """Runs shards of images; imports the engine."""
        with self._lock:
            if self._runner is None:
                self._runner = self._make_runner()
            return self._runner

    @property
    def trainer(self) -> TrainRunner:
        """Trains models; imports torch."""
        with self._lock:
            if self._trainer is None:
                self._trainer = self._make_trainer()
            return self._trainer

    @cached_property
    def evaluator(self) -> EvaluateRunner:
        """Judges models with those that the runner has loaded; imports torch."""
        import torch

        from worker.engine.runtime import torch_device
        from worker.evaluation.job import EvaluateRunner
        from worker.evaluation.judges.generator import GeneratorJudge

        settings = self.settings
        device = torch.device(torch_device(settings.device))
        return EvaluateRunner(
            name=self._name,
            backend=self.backend,
            renewer=self.renewer,
            reader=self.reader,
            models=self.runner.models,
            judge_generator=GeneratorJudge(device, settings.threads or cores()),
            alone=self._training,
            max_attempts=settings.max_attempts,
        )

    @property
    def generator(self) -> GenerateRunner:
        """Generates images; imports torch. One a process, for it knows which group the device is at."""
        with self._lock:
            if self._generator is None:
                self._generator = self._make_generator()
            return self._generator

    @cached_property
    def verifier(self) -> VerifyRunner:
        """Generates images again; imports torch."""
        from worker.generation.verify import VerifyRunner

        settings = self.settings
        return VerifyRunner(
            name=self._name,
            backend=self.backend,
            renewer=self.renewer,
            models=self.runner.models,
            max_attempts=settings.max_attempts,
            max_pixels=settings.max_image_pixels,
        )

    @cached_property
    def images_finalizer(self) -> ImagesFinalizer:
        """Ends jobs that generate; imports torch."""
        from worker.classify import report as classify_report
        from worker.generation.finalize_images import ImagesFinalizer
        from worker.generation.report import GeneratedReport
        from worker.generation.report_encoded import EncodedReport

        generator, limit = self.generator, self.settings.max_image_pixels
        report = GeneratedReport(self.backend, generator.models, generator.reference_features, limit)
        return ImagesFinalizer(
            backend=self.backend,
            models=generator.models,
            report=report.write,
            encoded=EncodedReport(self.backend, generator.models, generator.source_images, limit).write,
            page=partial(classify_report.write, self.backend, self.fetcher, max_pixels=limit),
            lock_seconds=self.settings.lease_seconds,
        )

    @cached_property
    def reader(self) -> DatasetReader:
        """Makes arrays of labelled sources."""
        from worker.datasets.reader import DatasetReader

        settings = self.settings
        return DatasetReader(
            store=self.backend.store,
            fetcher=self.fetcher,
            scratch=settings.cache_dir.expanduser() / "datasets",
            max_pixels=settings.max_image_pixels,
            threads=settings.threads or cores(),
        )

    @cached_property
    def renewer(self) -> LeaseRenewer:
        """Holds every lease of this process."""
        from worker.execution.leases import LeaseRenewer

        return LeaseRenewer(self.backend.ledger, self.settings.lease_seconds)

    @cached_property
    def fetcher(self) -> Fetcher:
        """Reads images, for all that this process does."""
        from worker.sources.fetch import Fetcher

        return Fetcher(self._image_store(), self.settings.max_image_bytes)

    def start(self, name: str, queues: list[str]) -> None:
        """Begin to be seen, and warm up where shards are to be run."""
        self._name, self._queues = name, queues
        threading.Thread(target=self._live, name="heartbeat", daemon=True).start()

    def run(self, kind: str, job: str, shard: int) -> None:
        """Run a shard of a job of this kind.

        Where what runs it cannot be loaded, that counts against the shard, so that a job that no worker can run ends;
        and this worker leaves, for an upgrade in place may have left it with modules of two versions.
        """
        try:
            runner = self._runner_of(kind)
        except Exception as error:  # modules that do not fit together fail in any way
            if self.unfit(error):  # a copy of the message is no second attempt
                self._refuse(kind, job, shard, error)
        else:
            runner.run(job, shard)

    def unfit(self, error: Exception) -> bool:
        """Have Celery end this process once running shards have, for it cannot load its code; False where it does so.

        Whoever started it starts it again.
        """
        from celery.worker import state

        with self._lock:
            known, self.exit_code = bool(self.exit_code), EXIT_UNFIT
        if not known:
            log.critical("Leaving, for the code of this worker cannot be loaded", exc_info=error)
            self.leave()
            state.should_stop = EXIT_UNFIT
        return not known

    def leave(self) -> None:
        """Shards end, but what takes hours is left to another worker."""
        self._leaving.set()

    def stop(self) -> None:
        self._stop.set()
        try:
            self.backend.ledger.leave(self._name)
        except ServiceUnavailable:
            log.info("Redis is away; the heartbeat ends by itself")
        if self._runner is not None:
            self._runner.models.close()
        if "renewer" in self.__dict__:
            self.renewer.close()
        if "fetcher" in self.__dict__:
            self.fetcher.close()

    def warm_up(self) -> None:
        """Publish built-in models where they are missing, and load the one that most jobs take: no shard need wait."""
        from contract.models.registry import Registry
        from worker.zoo import builtin

        self.backend.store.ensure_bucket()
        registry = Registry(self.backend.store)
        for (name, version), make in builtin.models().items():
            if not registry.exists(name, version):
                registry.publish(*make())
        with self.runner.models.use(f"{builtin.NAME}@{builtin.VERSION}", "auto"):
            pass

    def _runner_of(self, kind: str) -> _Runs:
        match kind:
            case "train":
                return self.trainer
            case "evaluate":
                return self.evaluator
            case "generate":
                return self.generator
            case "verify":
                return self.verifier
            case _:
                return self.runner

    def _refuse(self, kind: str, job: str, shard: int, error: Exception) -> None:
        """Count an attempt of a shard that cannot be begun; the last one ends the job."""
        from worker.execution.runner import Runner

        said = f"what runs a job of kind {kind} cannot be loaded ({type(error).__name__}: {error})"

        def refuse(lease: Lease, kills: int) -> Step:
            if kills + 1 >= self.settings.max_attempts:
                raise JobFailed(
                    f"On {kills + 1} workers, the last one {self._name}, {said}; install Imagemill anew there, restart "
                    f"them, then `imagemill resume {job}`."
                )
            raise WorkerUnfit(f"On {self._name} {said}.")

        Runner(kind, self._name, self.backend, self.renewer, lambda: False).run(job, shard, refuse)

    def _make_runner(self) -> ShardRunner:
        from worker.classify.shard import ShardRunner
        from worker.execution.exclusive import SharedExclusiveLock
        from worker.execution.model_cache import Models

        settings = self.settings
        return ShardRunner(
            name=self._name,
            backend=self.backend,
            renewer=self.renewer,
            fetcher=self.fetcher,
            models=Models(self.backend.store, settings),
            turns=SharedExclusiveLock(),
            max_attempts=settings.max_attempts,
        )

    def _make_generator(self) -> GenerateRunner:
        from concurrent.futures import ThreadPoolExecutor

        import torch

        from worker.engine.runtime import torch_device
        from worker.execution.device_slots import DeviceSlots
        from worker.generation.reference_features import ReferenceFeatures
        from worker.generation.shard import GenerateRunner
        from worker.generation.source_images import SourceImages

        settings, models = self.settings, self.runner.models
        threads = settings.threads or cores()
        return GenerateRunner(
            name=self._name,
            backend=self.backend,
            renewer=self.renewer,
            models=models,
            reference_features=ReferenceFeatures(self.backend.store, self.reader, models),
            source_images=SourceImages(self.backend.store, self.reader, models),
            encoders=ThreadPoolExecutor(threads, "encode"),
            device_slots=DeviceSlots(torch.device(torch_device(settings.device)), threads),
            max_attempts=settings.max_attempts,
        )

    def _make_trainer(self) -> TrainRunner:
        from worker.engine.memory import calm_openmp, tune_allocator

        tune_allocator()
        calm_openmp()
        import torch

        from worker.engine.runtime import torch_device
        from worker.training.job import TrainRunner

        settings = self.settings
        return TrainRunner(
            name=self._name,
            backend=self.backend,
            renewer=self.renewer,
            reader=self.reader,
            device=torch.device(torch_device(settings.device)),
            threads=settings.threads or cores(),
            max_attempts=settings.max_attempts,
            checkpoint_seconds=settings.checkpoint_seconds,
            leaving=self._leaving,
            alone=self._training,
        )

    def _image_store(self) -> ObjectStore:
        from worker.sources.obstore_reader import ObstoreReader

        return ObjectStore(
            self.settings, patience=self.settings.store_patience_seconds, obstore_reader=ObstoreReader(self.settings)
        )

    def _live(self) -> None:
        if "classify" in self._queues:
            try:
                self.warm_up()
            except ImagemillError as error:
                # A shard will meet the same error and report it where the user looks.
                log.error("The built-in model could not be loaded: %s", error)
            except ImportError as error:
                self.unfit(error)
        started = time.time()
        while True:
            try:
                self.backend.ledger.beat(self._name, _BEAT_TTL, started_at=f"{started:.3f}", **self._vitals())
            except ServiceUnavailable as error:
                log.warning("No heartbeat: %s", error)
            self._watch()
            if self._stop.wait(_BEAT_SECONDS):
                return

    def _vitals(self) -> dict[str, str | int]:
        vitals: dict[str, str | int] = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "queues": ",".join(self._queues),
        }
        if self._runner is not None:
            runtimes = self._runner.models.runtimes()
            vitals["models"] = ",".join(runtimes)
            vitals["device"] = ",".join(sorted({r.device for r in runtimes.values()}))
            vitals["runtime"] = ",".join(sorted({f"{r.name}/{r.precision}" for r in runtimes.values()}))
        if "renewer" in self.__dict__:
            vitals["shards"] = len(self.renewer.held())
        return vitals

    def _watch(self) -> None:
        """Leave when a shard has not moved for too long: whoever started this process starts it again."""
        if "renewer" not in self.__dict__:
            return
        for lease in self.renewer.held():
            idle = time.monotonic() - (lease.progress_at or time.monotonic())
            if idle > self.settings.stall_seconds:
                log.critical("Shard %d of %s has not moved for %.0f s; leaving", lease.shard, lease.job, idle)
                os._exit(EXIT_STALLED)
