"""The parts that all jobs of a worker process share: connections, readers, loaded models, locks.

Each part is made when it is first needed. It knows no kind of job: a kind's module makes its own parts with `once`,
which everything else in the process then shares.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from contract.backend.objects import ObjectStore
from contract.fleet.rates import Meter
from contract.jobs.lifecycle import Backend
from contract.settings import Settings
from worker.engine.cores import cores
from worker.execution.admission import Admission
from worker.execution.exclusive import Turns
from worker.execution.health import Health

if TYPE_CHECKING:
    import torch

    from worker.datasets.reader import DatasetReader
    from worker.engine.images.device_decoder import DeviceDecoder
    from worker.execution.leases import LeaseRenewer
    from worker.execution.model_cache import Models
    from worker.sources.fetch import Fetcher

log = logging.getLogger(__name__)

T = TypeVar("T")


class Resources:
    """The shared parts of a process; `name` is the worker's, unique among live workers."""

    def __init__(self, backend: Backend, settings: Settings, name: str) -> None:
        self.backend, self.settings, self.name = backend, settings, name
        self.process = uuid.uuid4().hex[:12]
        """The id of this process; a worker that is started again has another."""
        self.turns = Turns()
        """Who computes now; shared by all kinds of jobs."""
        self.leaving = threading.Event()
        """Set when the worker is asked to end: what takes hours stops at its next step."""
        self.health = Health(lambda: None, leaving=self.leaving)
        """Whether this process can be relied upon."""
        self.meter = Meter()
        """Measures how fast shards run; heartbeats publish it."""
        self.training = threading.Lock()
        """Held by whatever trains: a process trains one thing at a time."""
        self.slots = 1
        """Shards that this process runs at once."""
        self.queues: frozenset[str] = frozenset()
        """The queues that it serves."""
        self.take: Callable[[int], None] = lambda waiting: None
        """Told how many shards only wait for the web, to take others in their place."""
        self.loading: Callable[[], str] = lambda: ""
        """Returns the served model that is being loaded; empty if there is none."""
        self._lock = threading.RLock()
        self._made: dict[Callable[[Resources], Any], Any] = {}

    def once(self, make: Callable[[Resources], T]) -> T:
        """Return what `make` makes of these resources, made at the first call; raises what `make` raises."""
        with self._lock:
            if make not in self._made:
                self._made[make] = make(self)
            return cast("T", self._made[make])

    @property
    def threads(self) -> int:
        """Number of cores to compute on."""
        return self.settings.threads or cores()

    @property
    def admission(self) -> Admission:
        """Says what may run beside what runs."""
        return self.once(_make_admission)

    @property
    def renewer(self) -> LeaseRenewer:
        """Renews every lease of the process."""
        return self.once(_make_renewer)

    @property
    def fetcher(self) -> Fetcher:
        """Reads the bytes of images."""
        return self.once(_make_fetcher)

    @property
    def models(self) -> Models:
        """Loads models; imports the engine."""
        return self.once(_make_models)

    @property
    def reader(self) -> DatasetReader:
        """Makes arrays of labelled sources."""
        return self.once(_make_reader)

    @property
    def device(self) -> torch.device:
        """The device that torch computes on; imports torch."""
        return self.once(_find_device)

    def device_made(self) -> torch.device | None:
        """Return `device` if something computes on it, without importing torch."""
        return self._made.get(_find_device)

    def models_made(self) -> Models | None:
        """Return `models` if something was loaded by it, without making it."""
        return self._made.get(_make_models)

    def renewer_made(self) -> LeaseRenewer | None:
        """Return `renewer` if there is one, without making it."""
        return self._made.get(_make_renewer)

    def close(self) -> None:
        """Let go of models, leases and threads."""
        for make in (_make_models, _make_renewer, _make_fetcher):
            if make in self._made:
                self._made[make].close()


def _make_admission(resources: Resources) -> Admission:
    return Admission(resources.training, resources.slots, resources.queues)


def _make_renewer(resources: Resources) -> LeaseRenewer:
    from worker.execution.leases import LeaseRenewer

    return LeaseRenewer(
        resources.backend.ledger, resources.settings.lease_seconds, lambda waiting: resources.take(waiting)
    )


def _make_fetcher(resources: Resources) -> Fetcher:
    from worker.engine.images import decoders
    from worker.engine.motion import moved
    from worker.sources.fetch import Fetcher
    from worker.sources.obstore_reader import ObstoreReader

    settings = resources.settings
    decoders.configure(  # whoever decodes has fetched before
        children=settings.decode_in == "process",
        seconds=settings.decode_seconds,
        max_pixels=settings.max_image_pixels,
        gpu=_device_decoder(settings),
    )
    store = ObjectStore(
        settings, patience=settings.store_patience_seconds, obstore_reader=ObstoreReader(settings), heard=moved
    )
    return Fetcher.of(store, settings)


def _device_decoder(settings: Settings) -> DeviceDecoder | None:
    """Return what decodes on the GPU of this worker, or None where none is asked for or models run on the CPU."""
    if settings.decoder == "pillow":
        return None
    from worker.engine import select
    from worker.engine.images.device_decoder import DeviceDecoder

    kind, _ = select.capabilities(settings.device, settings.runtime)
    if kind != "cuda":
        log.warning("Images are decoded by Pillow, not by nvImageCodec: models run on the CPU of this worker.")
        return None
    index = settings.device.partition(":")[2]
    return DeviceDecoder(int(index or 0))


def _make_models(resources: Resources) -> Models:
    from worker.execution.model_cache import Models

    return Models(resources.backend.store, resources.settings)


def _make_reader(resources: Resources) -> DatasetReader:
    from worker.datasets.reader import DatasetReader

    settings = resources.settings
    return DatasetReader(
        store=resources.backend.store,
        fetcher=resources.fetcher,
        scratch=settings.cache_dir.expanduser() / "datasets",
        max_pixels=settings.max_image_pixels,
        threads=resources.threads,
    )


def _find_device(resources: Resources) -> torch.device:
    import torch

    from worker.engine.select import torch_device

    return torch.device(torch_device(resources.settings.device))
