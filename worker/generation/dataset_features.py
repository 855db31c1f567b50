"""Features of the images that a dataset holds, by the gate of the job that extends it.

The job that made a version stores what its gate saw. A job with another gate computes the features of earlier versions
anew, from their images, and stores them for the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load, save

from contract.backend.objects import ObjectStore
from contract.datasets.records import Version
from contract.datasets.versions import Datasets
from contract.errors import ObjectNotFound
from contract.jobs.specs import Source, Synthesize
from contract.keys.datasets import dataset_features
from worker.datasets.reader import DatasetReader, Wanted
from worker.engine.images import pixels
from worker.evaluation.judges import forward
from worker.execution.model_cache import Models
from worker.execution.resources import Resources
from worker.generation.selection import normalized

ByClass = dict[int, NDArray[np.float32]]
"""Features by class index: float32 [n, d] with rows of length 1."""


@dataclass(frozen=True)
class DatasetFeatures:
    """Reads, computes and stores the features of versions."""

    store: ObjectStore
    reader: DatasetReader
    models: Models

    def before(self, spec: Synthesize, check: Callable[[], None]) -> ByClass:
        """Return the features of all images that the dataset held before the version that a job makes.

        `check` is called now and then; it raises if the caller should stop.
        """
        if spec.extend is None or spec.extend.number == 1:
            return {}
        found: dict[int, list[NDArray[np.float32]]] = {}
        for version in Datasets(self.store).grown(f"{spec.extend.dataset}@{spec.extend.number - 1}").versions:
            check()
            features, labels = self._stored(spec, version.job) or self._computed(spec, version, check)
            for label in np.unique(labels):
                found.setdefault(int(label), []).append(features[labels == label])
        return {label: np.concatenate(parts) for label, parts in found.items()}

    def keep(self, spec: Synthesize, accepted: Mapping[int, NDArray[np.float32]]) -> None:
        """Store the features of the images that a job adds."""
        labels = [np.full(len(features), label, np.int64) for label, features in accepted.items()]
        self._store(spec, spec.id, np.concatenate(list(accepted.values())), np.concatenate(labels))

    def _store(self, spec: Synthesize, job: str, features: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        data = save({"features": torch.from_numpy(features), "labels": torch.from_numpy(labels)})
        # The first counts, so that every job compares with the same.
        self.store.put_if_absent(self._key(spec, job), data)

    def _stored(self, spec: Synthesize, job: str) -> tuple[NDArray[np.float32], NDArray[np.int64]] | None:
        try:
            found = load(self.store.get(self._key(spec, job)))
        except ObjectNotFound:
            return None
        return found["features"].numpy(), found["labels"].numpy()

    def _computed(
        self, spec: Synthesize, version: Version, check: Callable[[], None]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        wanted = Wanted(size=version.size, channels=version.channels, classes=version.labels)
        source = Source(kind="job", uri=version.job, label=version.ref)
        data = self.reader.read(source, wanted, lambda _: check()).data
        size = self.models.model(spec.gate).preprocess.size
        with self.models.use(spec.gate, "fp32") as loaded:
            outputs = forward(
                loaded.runtime, data, lambda _: check(), lambda images: pixels.rgb(pixels.resized(images, size))
            )
            unit = normalized(np.concatenate([output.features for output in outputs]))
        self._store(spec, version.job, unit, data.labels)
        stored = self._stored(spec, version.job)
        return stored if stored is not None else (unit, data.labels)

    def _key(self, spec: Synthesize, job: str) -> str:
        assert spec.extend is not None, "the job extends a dataset"
        return dataset_features(spec.extend.dataset, spec.gate_sha256, job)


def make_dataset_features(resources: Resources) -> DatasetFeatures:
    """Return the features of datasets that all jobs of this process share."""
    return DatasetFeatures(resources.backend.store, resources.reader, resources.models)
