"""Features of the real images that a synthesis must not copy, computed by its gate.

They are computed once per job and stored in the bucket beside the candidates, where the other workers read them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save

from contract.backend.objects import ObjectStore
from contract.errors import ObjectNotFound
from contract.jobs.specs import Synthesize
from contract.keys.jobs import JobKeys
from worker.datasets.dataset import Dataset
from worker.datasets.reader import DatasetReader, Wanted
from worker.engine.images import pixels
from worker.evaluation.judges import forward
from worker.execution.leases import Lease
from worker.execution.model_cache import Models
from worker.execution.resources import Resources
from worker.generation.selection import normalized

_HELD = 2
_BLOCK = 1 << 22
"""Dot products held at a time: 16 MiB of float32."""


@dataclass(frozen=True)
class Reference:
    """Features of real images, float32 [n, d] with rows of length 1, in the order of their source."""

    unit: NDArray[np.float32]

    def nearest(self, unit: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the cosine distance of each row to the nearest real image, float32 [m], and its number, int64 [m].

        `unit` is float32 [m, d] with rows of length 1.
        """
        step = max(1, _BLOCK // max(1, len(self.unit)))
        found = [(unit[at : at + step] @ self.unit.T) for at in range(0, len(unit), step)]
        rows = np.concatenate([part.argmax(axis=1) for part in found])
        close = np.concatenate([part.max(axis=1) for part in found])
        return (1 - close).astype(np.float32), rows


@dataclass
class ReferenceFeatures:
    """Holds the reference features of the jobs that this process works on."""

    store: ObjectStore
    reader: DatasetReader
    models: Models
    _found: OrderedDict[str, Reference] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def of(self, spec: Synthesize, lease: Lease) -> Reference | None:
        """Return the reference of a job, computing it if no worker has; None if the job has no `--away-from`."""
        if spec.away_from is None:
            return None
        while not self._lock.acquire(timeout=1.0):  # one thread computes; the others report progress while they wait
            lease.progress(0, 0)
            lease.check()
        try:
            if spec.id not in self._found:
                self._found[spec.id] = self._stored(spec) or self._computed(spec, lease)
                if len(self._found) > _HELD:
                    self._found.popitem(last=False)
            return self._found[spec.id]
        finally:
            self._lock.release()

    def known(self, spec: Synthesize) -> Reference | None:
        """Return the stored reference of a job, or None if it has none or its candidates were deleted."""
        return None if spec.away_from is None else self._found.get(spec.id) or self._stored(spec)

    def images(self, spec: Synthesize, lease: Lease | None = None) -> Dataset:
        """Return the real images in the shape of generated ones, uint8 [n, size, size, c]."""
        assert spec.away_from is not None, "there is a reference"
        pre = self.models.model(spec.model).preprocess

        def seen(images: int) -> None:
            if lease is not None:
                lease.progress(0, 0, {"read": images})
                lease.check()

        wanted = Wanted(size=pre.size, channels=pre.channels, classes=self.models.model(spec.model).labels)
        return self.reader.read(spec.away_from, wanted, seen).data

    def _stored(self, spec: Synthesize) -> Reference | None:
        try:
            found = load(self.store.get(JobKeys(spec.id).reference))
        except ObjectNotFound:
            return None
        return Reference(found["features"].numpy())

    def _computed(self, spec: Synthesize, lease: Lease) -> Reference:
        data = self.images(spec, lease)
        size = self.models.model(spec.gate).preprocess.size

        def advance(_: int) -> None:
            lease.progress(0, 0)
            lease.check()

        with self.models.use(spec.gate, "fp32") as loaded:
            outputs = forward(loaded.runtime, data, advance, lambda images: pixels.rgb(pixels.resized(images, size)))
            unit = normalized(np.concatenate([output.features for output in outputs]))
        self.store.put_if_absent(JobKeys(spec.id).reference, save({"features": torch.from_numpy(unit)}))
        return Reference(unit)


def make_reference_features(resources: Resources) -> ReferenceFeatures:
    """Return the reference features that all jobs of this process share."""
    return ReferenceFeatures(resources.backend.store, resources.reader, resources.models)
