"""Write the page of a generate or synthesize job: contact sheets, acceptance, scores, nearest training images.

    indices, shard by shard → counts → files of a few rows → page

It reads only what is committed, so a page can be written again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from contract.data import dataset_stats, image_index
from contract.data.provenance import provenance
from contract.errors import ObjectNotFound
from contract.jobs.lifecycle import Backend, read_commit
from contract.jobs.results import committed
from contract.jobs.specs import Generate, SampledSpec, Synthesize
from worker.datasets.dataset import evenly
from worker.engine.images.decode import decode
from worker.execution.model_cache import Models
from worker.execution.resources import Resources
from worker.generation.reference_features import Reference, ReferenceFeatures, make_reference_features
from worker.generation.report_page import write_page
from worker.generation.report_rows import Gathered, read_files
from worker.generation.selection import normalized
from worker.generation.shard import FEATURES
from worker.metrics import distances
from worker.pages import generated
from worker.pages.acceptance import ClassCount
from worker.pages.generated import GateScores, Nearest, Synthesis

_COMPARED = 10_000
"""The most images of either set that distances are measured between."""
_LEAST = 6
"""Fewer images have no neighbourhoods of five."""


@dataclass(frozen=True)
class GeneratedReport:
    """Writes the pages of generate and synthesize jobs."""

    backend: Backend
    models: Models
    reference_features: ReferenceFeatures
    max_pixels: int

    def write(self, spec: SampledSpec, counted: dataset_stats.DatasetStats) -> dict[str, float]:
        """Write the page of a job that made `counted`; return the figures that `imagemill show` prints."""
        found = Gathered()
        for commit, table in image_index.shards(self.backend.store, spec):
            found.add(commit, table.to_pylist())
            if isinstance(spec, Generate) and found.pictured(counted):
                break  # shards are in the order of the images, and without a gate there is nothing else to count
        model = self.models.model(spec.model)
        counts = {one.index: one for one in counted.classes}
        classes = [
            _count(spec, model.labels[label], counts.get(label), found.rejects.get(label, {})) for label in spec.classes
        ]
        shown = [spec.classes[place] for place in generated.pictured(classes)]
        wanted = [one for label in shown for one in found.first.get(label, [])]
        files = read_files(self.backend.store, [*wanted, *((commit, row) for _, commit, row in found.nearest)])
        places = {label: place for place, label in enumerate(spec.classes)}
        images = {
            places[label]: np.stack([self._pixels(files[row["key"]], row["width"]) for _, row in found.first[label]])
            for label in shown
            if found.first.get(label)
        }
        nearest = compared = scores = None
        if isinstance(spec, Synthesize):
            accepted, rejected = (np.array(part, np.float32) for part in found.scores)
            scores = GateScores(accepted, rejected, spec.min_score)
            reference = self.reference_features.known(spec)
            if reference is not None:
                nearest = self._nearest(spec, found, files)
                compared = self._distances(spec, reference)
        sections = generated.sections(
            Synthesis(
                tuple(classes),
                images,
                scores,
                nearest,
                compared,
                features=f"{spec.gate}, normalized to length 1" if isinstance(spec, Synthesize) else "",
            )
        )
        title = f"{provenance(spec).title} of {spec.model}"
        write_page(self.backend.store, spec, title, f"seed {spec.seed}", sections)
        return _headline(compared)

    def _nearest(self, spec: Synthesize, found: Gathered, files: Mapping[str, bytes]) -> Nearest | None:
        """Return the accepted images nearest to a training image, with that image, at the generator's size."""
        if not found.nearest:
            return None
        real = self.reference_features.images(spec)
        rows = [row for _, _, row in found.nearest]
        training = real.images[np.array([int(row["nearest"]) for row in rows], np.int64)]
        generated = np.stack([self._pixels(files[row["key"]], real.size) for row in rows])
        if real.channels == 1:
            training = np.repeat(training, 3, axis=3)
        return Nearest(generated, training, [distance for distance, _, _ in found.nearest], spec.copy_distance)

    def _distances(self, spec: Synthesize, reference: Reference) -> distances.Distances | None:
        """Measure distances between features of accepted and of real images, both normalized to length 1."""
        accepted = self._features(spec)
        if min(len(accepted), len(reference.unit)) < _LEAST:
            return None
        real, ours = (torch.from_numpy(part[evenly(len(part), _COMPARED)]) for part in (reference.unit, accepted))
        return distances.measure(real, ours)

    def _features(self, spec: Synthesize) -> NDArray[np.float32]:
        """Return the features of the accepted images, normalized to length 1, from the indices of candidates."""
        parts: list[NDArray[np.float32]] = []
        for commit, table in image_index.shards(self.backend.store, spec):
            try:
                candidates = committed(self.backend.store, read_commit(self.backend.store, spec.id, commit.shard))
            except ObjectNotFound:
                continue  # candidates are gone when a page is written again later
            keep = table["accepted"].to_numpy(zero_copy_only=False)
            if keep.any():
                column = candidates[FEATURES].combine_chunks().filter(table["accepted"].combine_chunks())
                parts.append(column.flatten().to_numpy().reshape(int(keep.sum()), -1))
        return normalized(np.concatenate(parts)) if parts else np.empty((0, 1), np.float32)

    def _pixels(self, data: bytes, side: int) -> NDArray[np.uint8]:
        return decode(data, side, crop=1.0, interpolation="bicubic", max_pixels=self.max_pixels).pixels


def _count(
    spec: SampledSpec, name: str, found: dataset_stats.ClassCount | None, rejects: Mapping[str, int]
) -> ClassCount:
    accepted, candidates = (found.accepted, found.candidates) if found else (0, 0)
    return ClassCount(
        name, spec.per_class if isinstance(spec, Synthesize) else candidates, accepted, candidates, rejects
    )


def _headline(compared: distances.Distances | None) -> dict[str, float]:
    if compared is None:
        return {}
    shape = compared.manifold
    return {
        "frechet_distance": compared.frechet,
        "precision": shape.precision,
        "recall": shape.recall,
        "density": shape.density,
        "coverage": shape.coverage,
    }


def make_report(resources: Resources) -> Callable[[SampledSpec, dataset_stats.DatasetStats], dict[str, float]]:
    """Return the function that writes these pages in this process."""
    features, limit = resources.once(make_reference_features), resources.settings.max_image_pixels
    return GeneratedReport(resources.backend, resources.models, features, limit).write
