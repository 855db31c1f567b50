"""The page of a job that generated: contact sheets, acceptance, scores, nearest training images, distances.

    indices, shard by shard → counts → files of a few → page

Read from what is committed, so it can be written again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import torch
from numpy.typing import NDArray

from contract.backend.objects import ObjectStore
from contract.data import dataset_stats, image_index
from contract.data.provenance import provenance
from contract.errors import ObjectNotFound
from contract.jobs.lifecycle import Backend, read_commit, read_created
from contract.jobs.results import committed
from contract.jobs.specs import Generate, SampledSpec, Synthesize
from contract.jobs.status import ShardCommit
from contract.keys import JobKeys
from worker.datasets.dataset import evenly
from worker.engine.images.decode import decode
from worker.execution.model_cache import Models
from worker.execution.resources import Resources
from worker.generation.archive import Row
from worker.generation.reference_features import Reference, ReferenceFeatures, make_reference_features
from worker.generation.selection import normalized
from worker.generation.shard import FEATURES
from worker.metrics import distances
from worker.pages import generated, page
from worker.pages.generated import PAIRS, SHEET, ClassCount, GateScores, Nearest, Synthesis

_COMPARED = 10_000
"""Images of each side that distances are measured between, at most."""
_LEAST = 6
"""Fewer have no neighbourhoods of five."""


@dataclass
class _Found:
    """What is gathered of the rows."""

    rejects: dict[int, Counter[str]] = field(default_factory=dict)
    first: dict[int, list[tuple[ShardCommit, Row]]] = field(default_factory=dict)
    """The first accepted of each class, by index."""
    nearest: list[tuple[float, ShardCommit, Row]] = field(default_factory=list)
    scores: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    """Of accepted and of rejected candidates."""

    def add(self, commit: ShardCommit, rows: Sequence[Row]) -> None:
        for row in rows:
            label = row["label_index"]
            if row["score"] is not None:
                self.scores[0 if row["accepted"] else 1].append(row["score"])
            if not row["accepted"]:
                self.rejects.setdefault(label, Counter())[row["reject_reason"]] += 1
                continue
            self.first.setdefault(label, []).append((commit, row))
            if row["copy_distance"] is not None:
                self.nearest.append((row["copy_distance"], commit, row))
        for label, found in self.first.items():
            self.first[label] = sorted(found, key=lambda one: one[1]["index"])[:SHEET]
        self.nearest = sorted(self.nearest, key=lambda one: one[0])[:PAIRS]

    def pictured(self, counted: dataset_stats.DatasetStats) -> bool:
        """Whether the images of every contact sheet are there."""
        return all(len(self.first.get(one.index, ())) >= min(SHEET, one.accepted) for one in counted.classes)


@dataclass(frozen=True)
class GeneratedReport:
    """What a worker needs to write pages of jobs that generated."""

    backend: Backend
    models: Models
    reference_features: ReferenceFeatures
    max_pixels: int

    def write(self, spec: SampledSpec, counted: dataset_stats.DatasetStats) -> dict[str, float]:
        """Write the page of a job that made what is `counted`; figures for `show`."""
        found = _Found()
        for commit, table in image_index.shards(self.backend.store, spec):
            found.add(commit, table.to_pylist())
            if isinstance(spec, Generate) and found.pictured(counted):
                break  # its shards are in the order of the images, and without a gate there is no more to tell
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
                features=f"{spec.gate}, of length 1" if isinstance(spec, Synthesize) else "",
            )
        )
        html = page.render(
            f"{provenance(spec).title} of {spec.model}",
            model=spec.model,
            data=f"job {spec.id}, seed {spec.seed}",
            date=datetime.fromisoformat(read_created(self.backend.store, spec.id)).astimezone(UTC),
            sections=sections,
        )
        self.backend.store.put(JobKeys(spec.id).report, html.encode())
        return _headline(compared)

    def _nearest(self, spec: Synthesize, found: _Found, files: Mapping[str, bytes]) -> Nearest | None:
        """The accepted images nearest to a training image, beside it, at the size of the generator."""
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
        """Between features of what was accepted and of the real images, both of length 1."""
        accepted = self._features(spec)
        if min(len(accepted), len(reference.unit)) < _LEAST:
            return None
        real, ours = (torch.from_numpy(part[evenly(len(part), _COMPARED)]) for part in (reference.unit, accepted))
        return distances.measure(real, ours)

    def _features(self, spec: Synthesize) -> NDArray[np.float32]:
        """Features of the accepted images, rows of length 1, from the indices of candidates."""
        parts: list[NDArray[np.float32]] = []
        for commit, table in image_index.shards(self.backend.store, spec):
            try:
                candidates = committed(self.backend.store, read_commit(self.backend.store, spec.id, commit.shard))
            except ObjectNotFound:
                continue  # a page that is written again, when candidates are gone
            keep = table["accepted"].to_numpy(zero_copy_only=False)
            if keep.any():
                column = candidates[FEATURES].combine_chunks().filter(table["accepted"].combine_chunks())
                parts.append(column.flatten().to_numpy().reshape(int(keep.sum()), -1))
        return normalized(np.concatenate(parts)) if parts else np.empty((0, 1), np.float32)

    def _pixels(self, data: bytes, side: int) -> NDArray[np.uint8]:
        return decode(data, side, crop=1.0, interpolation="bicubic", max_pixels=self.max_pixels).pixels


def read_files(store: ObjectStore, wanted: Sequence[tuple[ShardCommit, Row]]) -> dict[str, bytes]:
    """The files of these rows of accepted images by key, each tar read once."""
    by_shard: dict[int, tuple[ShardCommit, list[Row]]] = {}
    for commit, row in wanted:
        by_shard.setdefault(commit.shard, (commit, []))[1].append(row)
    found: dict[str, bytes] = {}
    for commit, rows in by_shard.values():
        # By their places: tarfile would read the header of every member first.
        tar = image_index.read_tar(store, commit)
        found |= {row["key"]: tar[row["offset"] : row["offset"] + row["size"]] for row in rows}
    return found


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
    """What writes pages of jobs that generated, in this process."""
    features, limit = resources.once(make_reference_features), resources.settings.max_image_pixels
    return GeneratedReport(resources.backend, resources.models, features, limit).write
