"""Write the page of a generate or synthesize job: contact sheets, acceptance, scores, nearest training images.

    indices, shard by shard → counts → files of a few rows → page

It reads only what is committed, so a page can be written again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from contract.data import dataset_stats, image_index
from contract.data.provenance import provenance
from contract.errors import ObjectNotFound
from contract.jobs.commits import read_commit
from contract.jobs.lifecycle import Backend
from contract.jobs.results import committed
from contract.jobs.specs import Generate, Synthesize
from contract.jobs.status import ShardCommit
from worker.datasets.dataset import evenly
from worker.engine.images.decode import decode
from worker.execution.model_cache import Models
from worker.execution.resources import Resources
from worker.generation.archive import Row
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
class Judged:
    """What the page of a synthesis says besides what the page of every sampled job does."""

    scores: GateScores | None = None
    nearest: Nearest | None = None
    compared: distances.Distances | None = None
    features: str = ""


S = TypeVar("S", Generate, Synthesize)


@dataclass(frozen=True)
class SampledReport(ABC, Generic[S]):
    """Writes the pages of jobs that draw images from a seed."""

    backend: Backend
    models: Models
    max_pixels: int

    @abstractmethod
    def enough(self, found: Gathered, counted: dataset_stats.DatasetStats) -> bool:
        """Return whether the rows gathered so far are all that the page needs."""

    @abstractmethod
    def wanted(self, spec: S, label: int, candidates: int) -> int:
        """Return how many images of a class were asked for, of which `candidates` were made."""

    def judge(self, spec: S, found: Gathered, files: Mapping[str, bytes]) -> Judged:
        """Return what the gate and the training images say of the images."""
        return Judged()

    def write(self, spec: S, counted: dataset_stats.DatasetStats) -> dict[str, float]:
        """Write the page of a job that made `counted`; return the figures that `imagemill show` prints."""
        found: Gathered = Gathered()
        for commit, table in image_index.shards(self.backend.store, spec):
            found.add(commit, table.to_pylist())
            if self.enough(found, counted):
                break
        model = self.models.model(spec.model)
        counts = {one.index: one for one in counted.classes}
        classes = [
            self._count(spec, label, model.labels[label], counts.get(label), found.rejects.get(label, {}))
            for label in spec.classes
        ]
        shown = [spec.classes[place] for place in generated.pictured(classes)]
        examples: list[tuple[ShardCommit, Row]] = [one for label in shown for one in found.first.get(label, [])]
        files = read_files(self.backend.store, [*examples, *((commit, row) for _, commit, row in found.nearest)])
        places = {label: place for place, label in enumerate(spec.classes)}
        images = {
            places[label]: np.stack([self._pixels(files[row["key"]], row["width"]) for _, row in found.first[label]])
            for label in shown
            if found.first.get(label)
        }
        judged = self.judge(spec, found, files)
        sections = generated.sections(
            Synthesis(tuple(classes), images, judged.scores, judged.nearest, judged.compared, features=judged.features)
        )
        title = f"{provenance(spec).title} of {spec.model}"
        write_page(self.backend.store, spec, title, f"seed {spec.seed}", sections)
        return _headline(judged.compared)

    def _count(
        self, spec: S, label: int, name: str, found: dataset_stats.ClassCount | None, rejects: Mapping[str, int]
    ) -> ClassCount:
        accepted, candidates = (found.accepted, found.candidates) if found else (0, 0)
        return ClassCount(name, self.wanted(spec, label, candidates), accepted, candidates, rejects)

    def _pixels(self, data: bytes, side: int) -> NDArray[np.uint8]:
        return decode(data, side, crop=1.0, interpolation="bicubic", max_pixels=self.max_pixels).pixels


@dataclass(frozen=True)
class GeneratedReport(SampledReport[Generate]):
    """Writes the pages of generate jobs."""

    def enough(self, found: Gathered, counted: dataset_stats.DatasetStats) -> bool:
        # Shards are in the order of the images, and without a gate there is nothing else to count.
        return found.pictured(counted)

    def wanted(self, spec: Generate, label: int, candidates: int) -> int:
        return candidates


@dataclass(frozen=True)
class SynthesizedReport(SampledReport[Synthesize]):
    """Writes the pages of synthesize jobs."""

    reference_features: ReferenceFeatures

    def enough(self, found: Gathered, counted: dataset_stats.DatasetStats) -> bool:
        return False

    def wanted(self, spec: Synthesize, label: int, candidates: int) -> int:
        return spec.wanted(label)

    def judge(self, spec: Synthesize, found: Gathered, files: Mapping[str, bytes]) -> Judged:
        """Return scores of the gate and, if there are training images, what is nearest to them and how far all are."""
        accepted, rejected = (np.array(part, np.float32) for part in found.scores)
        scores, features = GateScores(accepted, rejected, spec.min_score), f"{spec.gate}, normalized to length 1"
        reference = self.reference_features.known(spec)
        if reference is None:
            return Judged(scores, features=features)
        return Judged(scores, self._nearest(spec, found, files), self._distances(spec, reference), features)

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


def make_generated_report(
    resources: Resources,
) -> Callable[[Generate, dataset_stats.DatasetStats], dict[str, float]]:
    """Return the function that writes the pages of generate jobs in this process."""
    return GeneratedReport(resources.backend, resources.models, resources.settings.max_image_pixels).write


def make_synthesized_report(
    resources: Resources,
) -> Callable[[Synthesize, dataset_stats.DatasetStats], dict[str, float]]:
    """Return the function that writes the pages of synthesize jobs in this process."""
    limit, features = resources.settings.max_image_pixels, resources.once(make_reference_features)
    return SynthesizedReport(resources.backend, resources.models, limit, features).write
