"""A shard runner on the real servers whose engine is a stand-in: what it labels is told by the bytes."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from contract.data.items import Item, write_manifest
from contract.errors import ImageError, NotAnImage
from contract.jobs.kinds import kind_of
from contract.jobs.lifecycle import Backend, submit
from contract.jobs.numerics import Capabilities
from contract.jobs.specs import Classify, Source
from contract.jobs.status import Plan
from contract.keys.jobs import JobKeys
from contract.models.registry import Model
from tests.parity import MODEL
from tests.taking import granted
from worker.classify.shard import ClassifyWork
from worker.engine import canary
from worker.engine.budget import Reservation
from worker.engine.pipeline import Encoded, Failed, Labelled, Result
from worker.execution.capabilities import Fit
from worker.execution.exclusive import Turns
from worker.execution.health import Health
from worker.execution.job_runner import JobRunner
from worker.execution.leases import LeaseRenewer
from worker.execution.runner import Host
from worker.sources.fetch import Fetcher


@pytest.fixture(autouse=True)
def pixel_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undo what a test does to Pillow's limit of pixels, which holds for the whole process."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)


_numbers = itertools.count(1)


class FakeEngine:
    """Labels by the parity of the first byte; what begins with `!` is no image."""

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self.before = before
        self.seen = 0

    def submit(
        self, items: Sequence[Encoded], *, top_k: int, features: bool, memory: Sequence[Reservation] = ()
    ) -> Future[list[Result]]:
        future: Future[list[Result]] = Future()
        for reserved in memory:
            reserved.release()
        try:
            self.before()
            self.seen += len(items) if list(items) != list(canary.files()) else 0
            future.set_result([self._label(item) for item in items])
        except Exception as error:
            future.set_exception(error)
        return future

    @staticmethod
    def _label(item: Encoded) -> Result:
        if isinstance(item, ImageError):
            return Failed(item, None)
        if isinstance(item, tuple):
            item = b"".join(frame.data for frame in item)
        digest = hashlib.sha256(item).hexdigest()
        if item.startswith(b"!"):
            return Failed(NotAnImage("It is none."), digest)
        odd = item[0] % 2
        return Labelled((odd, 1 - odd), (0.75, 0.25), 2, 3, digest)


@dataclass
class FakeModels:
    engine: FakeEngine = field(default_factory=FakeEngine)
    error: Exception | None = None

    def model(self, _: str) -> Model:
        return MODEL

    @contextmanager
    def use(self, _: str, __: str) -> Iterator[Any]:
        if self.error:
            raise self.error
        yield SimpleNamespace(
            engine=self.engine, runtime=SimpleNamespace(name="fake", precision="fp32", batch_size=4, lanes=1)
        )


@dataclass(frozen=True)
class Labels:
    """A worker that runs classify jobs and nothing else."""

    backend: Backend
    name: str
    runner: JobRunner
    work: ClassifyWork

    def run(self, job: str, shard: int) -> None:
        """Run this shard, unless nobody may take it now."""
        grant = granted(self.backend.ledger, job, shard, f"{self.name}:{next(_numbers)}")
        if grant is not None:
            self.runner.run(kind_of("classify"), self.work, grant)


Runners = Callable[..., Labels]


@pytest.fixture
def runner_of(backend: Backend, request: pytest.FixtureRequest) -> Runners:
    """Makes runners by name, as if each were a process of its own; `unfit` is what its self-test raises."""

    def make(
        name: str = "worker",
        models: FakeModels | None = None,
        unfit: Exception | None = None,
        left: Callable[[str], None] = lambda _: None,
        runtimes: tuple[str, ...] = (),
        **limits: Any,
    ) -> Labels:
        def test() -> None:
            if unfit is not None:
                raise unfit

        renewer = LeaseRenewer(backend.ledger, 30.0)
        fetcher = Fetcher(backend.store, 1000, threads=2)
        request.addfinalizer(renewer.close)
        request.addfinalizer(fetcher.close)
        work = ClassifyWork(backend, fetcher, models or FakeModels())  # type: ignore[arg-type]
        fit = Fit(backend, Capabilities(device="cpu", precisions=("fp32",), runtimes=runtimes))
        host = Host(
            name=name,
            process=name,
            backend=backend,
            renewer=renewer,
            turns=Turns(),
            health=Health(test, left),
            **{"max_attempts": 3, "fault_seconds": 0.0, **limits},
        )
        return Labels(backend, name, JobRunner(host, fit), work)

    return make


Jobs = Callable[..., Classify]


@pytest.fixture
def job(backend: Backend) -> Jobs:
    """Begins a job whose items are objects with the given bytes, planned into shards of `shard_size`."""

    def make(*contents: bytes, shard_size: int = 4, id: str = "job", **options: Any) -> Classify:
        bucket = backend.store.bucket
        items = []
        for n, content in enumerate(contents):
            backend.store.put(f"in/{n}", content)
            items.append(Item(str(n), f"s3://{bucket}/in/{n}"))
        spec = Classify(
            id=id,
            source=Source(kind="prefix", uri=f"s3://{bucket}/in/", label="in"),
            model=MODEL.ref,
            weights_sha256=MODEL.weights.sha256,
            shard_size=shard_size,
            output=f"s3://{bucket}/jobs/{id}/out/",
            **{"max_errors": "100%", **options},
        )
        submit(backend, spec)
        keys = JobKeys(id)
        shards = [items[start : start + shard_size] for start in range(0, len(items), shard_size)]
        for number, chunk in enumerate(shards):
            backend.store.put(keys.manifest(number), write_manifest(chunk))
            backend.ledger.planned(id, number, len(chunk))
        backend.store.put(keys.plan, Plan(shards=len(shards), items=len(items)).to_json())
        limit = spec.error_limit(len(items))
        backend.ledger.complete(id, shards=len(shards), items=len(items), error_limit=limit, skipped=0)
        return spec

    return make
