"""Loaded models of one worker process: download, verify, load, and let go of the idle."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from contract.backend.objects import ObjectStore
from contract.errors import DeviceOutOfMemory
from contract.instruments import MODEL_LOAD_SECONDS
from contract.models.registry import PROGRAM, Model, Registry
from contract.models.rules import matches
from contract.models.rules import patterns as listed
from contract.paths import inside
from contract.records import Precision
from contract.settings import Settings
from worker.engine import canary
from worker.engine.pipeline import Engine
from worker.engine.select import give_back, load, verify
from worker.engine.types import ModelSpec, Runtime

if TYPE_CHECKING:
    from worker.engine.generators.generator import Generator

log = logging.getLogger(__name__)

T = TypeVar("T")

_LOADED_AT_MOST = 2
_RECORDS_AT_MOST = 64
_RECORD_SECONDS = 60.0  # a version that was removed is served for so long at most


@dataclass
class Loaded:
    """A model ready to run, with the number of shards that use it."""

    engine: Engine
    runtime: Runtime
    users: int = 0

    def close(self) -> None:
        self.engine.close()
        self.runtime.close()


class Models:
    """Keeps engines by model and precision; a model in use is never evicted."""

    def __init__(self, store: ObjectStore, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._settings = settings
        self._clock = clock
        self._lock = threading.Lock()
        """Held for moments, by heartbeats too."""
        self._loading = threading.Lock()
        """Held while a model is loaded or let go of, which takes seconds and the memory of the device."""
        self._loaded: OrderedDict[tuple[str, Precision], Loaded] = OrderedDict()
        self._generators: OrderedDict[tuple[str, Precision], Generator] = OrderedDict()
        self._held: Counter[tuple[str, Precision]] = Counter()
        """How many keep a generator loaded."""
        self._records: OrderedDict[str, tuple[float, Model]] = OrderedDict()

    def model(self, ref: str) -> Model:
        """Return the record of `name@version`, read once a minute; raises UnknownModel if it is not published."""
        read_at, model = self._records.get(ref, (-_RECORD_SECONDS, None))
        now = self._clock()
        if model is None or now - read_at >= _RECORD_SECONDS:
            model = Registry(self._store).get(ref)
            self._records[ref] = now, model
            if len(self._records) > _RECORDS_AT_MOST:
                self._records.popitem(last=False)
        return model

    @contextmanager
    def use(self, ref: str, precision: Precision) -> Iterator[Loaded]:
        """Hold the model `name@version`, loading it if necessary, which takes seconds.

        Raises ModelError if the files are not what the record says, and DeviceOutOfMemory if the device has no memory
        for it even without the models that nobody uses.
        """
        loaded = self._taken(ref, precision)
        if loaded is None:
            with self._loading:
                loaded = self._taken(ref, precision)
                if loaded is None:
                    self._let_go(_LOADED_AT_MOST - 1)
                    loaded = self._with_room(lambda: self._load(ref, precision))
                    loaded.users = 1
                    with self._lock:
                        self._loaded[ref, precision] = loaded
        try:
            yield loaded
        finally:
            with self._lock:
                loaded.users -= 1

    def generator(self, ref: str, precision: Precision) -> Generator:
        """Return the generator `name@version`, loading it if necessary, which takes a fraction of a second.

        Raises what `use` raises.
        """
        with self._lock:
            found = self._generators.get((ref, precision))
        if found is None:
            with self._loading:
                with self._lock:
                    found = self._generators.get((ref, precision))
                if found is None:
                    found = self._with_room(lambda: self._make_generator(ref, precision))
                    with self._lock:
                        self._generators[ref, precision] = found
                        for key in self._idle_generators()[:-_LOADED_AT_MOST]:
                            del self._generators[key]
        return found

    def evict(self) -> int:
        """Let go of the models that nobody uses, so that the device has room; return how many there were.

        A generator that a job has at hand keeps its memory until the job is done with it.
        """
        with self._loading:
            return self._let_go(0)

    @contextmanager
    def use_generator(self, ref: str, precision: Precision) -> Iterator[Generator]:
        """Hold the generator `name@version`, so that it stays loaded whatever else is; raises as `generator` does."""
        with self._lock:
            self._held[ref, precision] += 1
        try:
            yield self.generator(ref, precision)
        finally:
            with self._lock:
                self._held[ref, precision] -= 1

    def runtimes(self) -> dict[str, Runtime]:
        """Return the runtimes that are loaded now, by `name@version`."""
        with self._lock:
            return {ref: loaded.runtime for (ref, _), loaded in self._loaded.items()}

    def check(self, ref: str) -> None:
        """Run a known good image through `name@version` in every precision in which it is loaded; raise what fails."""
        with self._lock:
            found = [loaded for (name, _), loaded in self._loaded.items() if name == ref]
            for loaded in found:
                loaded.users += 1
        try:
            for loaded in found:
                canary.check(loaded.engine)
        finally:
            with self._lock:
                for loaded in found:
                    loaded.users -= 1

    def close(self) -> None:
        with self._lock:
            loaded = list(self._loaded.values())
            self._loaded.clear()
        for one in loaded:
            one.close()

    def _taken(self, ref: str, precision: Precision) -> Loaded | None:
        """Return a model that is loaded, and count its new user."""
        with self._lock:
            loaded = self._loaded.get((ref, precision))
            if loaded is not None:
                self._loaded.move_to_end((ref, precision))
                loaded.users += 1
        return loaded

    def _let_go(self, kept: int) -> int:
        """Close idle models, least recently used first, until `kept` are left; return how many were let go of.

        0 forgets generators too. The caller holds `_loading`.
        """
        with self._lock:
            idle = [key for key, loaded in self._loaded.items() if not loaded.users]
            gone = [self._loaded.pop(key) for key in idle[: max(0, len(self._loaded) - kept)]]
            count = len(gone)
            if not kept:
                unused = self._idle_generators()
                count += len(unused)
                for key in unused:
                    del self._generators[key]
        for loaded in gone:
            loaded.close()
        return count

    def _idle_generators(self) -> list[tuple[str, Precision]]:
        """Return the generators that nobody keeps loaded, the oldest first. The caller holds `_lock`."""
        return [key for key in self._generators if not self._held[key]]

    def _with_room(self, load: Callable[[], T]) -> T:
        """Return what `load` returns, which is tried again without the models that nobody uses if memory runs out."""
        try:
            return load()
        except DeviceOutOfMemory as error:
            full = str(error)
        # Outside of `except`, where the error would keep what was loaded of the model.
        count = self._let_go(0)
        if not count:
            raise DeviceOutOfMemory(full)
        log.warning("A model does not fit beside %d others that nobody uses, which are let go of: %s", count, full)
        gc.collect()
        give_back()
        return load()

    def _make_generator(self, ref: str, precision: Precision) -> Generator:
        from worker.engine.generators.generator import Generator

        model, settings = self.model(ref), self._settings
        spec = ModelSpec.of(model, fetch_weights(self._store, model, settings.cache_dir))
        verify(spec)
        return Generator(spec, device=settings.device, precision=precision, threads=settings.threads)

    def _load(self, ref: str, precision: Precision) -> Loaded:
        """Load a model. What nobody foresaw is raised as it is: it may be a fault of this machine."""
        model = self.model(ref)
        with MODEL_LOAD_SECONDS.seconds(ref):
            weights = fetch_weights(self._store, model, self._settings.cache_dir)
            runtime = load_runtime(model, weights, self._settings, precision)
        log.info(
            "%s runs on %s by %s in %s, batches of %d, %d lanes",
            model.ref,
            runtime.device,
            runtime.name,
            runtime.precision,
            runtime.batch_size,
            runtime.lanes,
        )
        engine = Engine(
            runtime,
            preprocess=model.preprocess,
            max_pixels=self._settings.max_image_pixels,
            frames=model.frames,
        )
        return Loaded(engine, runtime)


def fetch_weights(store: ObjectStore, model: Model, cache: Path) -> Path:
    """Return the file of a model's weights on this machine, named by their sha256; download it if it is missing.

    Raises ModelError where they are not what the record says.
    """
    path = inside(cache.expanduser() / "weights", f"{model.weights.sha256}{Path(model.weights.name).suffix}")
    if path.is_file() and path.stat().st_size == model.weights.bytes:
        return path
    data = Registry(store).read(model, model.weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
    part.write_bytes(data)
    part.replace(path)
    return path


def load_runtime(model: Model, weights: Path, settings: Settings, precision: Precision) -> Runtime:
    """Return the fastest runtime that the settings allow for a model, with its weights from a file.

    A program that was pushed runs in a confined child unless the operator trusts it. Raises ModelError if the weights
    do not match the record.
    """
    return load(
        ModelSpec.of(model, weights),
        device=settings.device,
        runtime=settings.runtime,
        precision=precision,
        threads=settings.threads,
        batch_size=settings.batch_size,
        resize=settings.resize,
        cache_dir=settings.cache_dir.expanduser(),
        # A third of the time after which a shard without progress ends its worker: a batch may be tried twice.
        confined_seconds=0.0 if trusted(model, settings.trusted_models) else settings.stall_seconds / 3,
    )


def trusted(model: Model, patterns: str) -> bool:
    """Return whether a model may run inside the worker: code of ours with weights, or a program that is listed."""
    return model.family != PROGRAM or matches(model, listed(patterns))
