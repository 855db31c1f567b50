"""Write the page of a reconstruct or interpolate job: reconstructions and their errors, or the interpolated images.

    indices, shard by shard → errors → a few files and their source images → page

It reads only what is committed, and source images that are still there, so a page can be written again.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from contract.data import image_index
from contract.data.dataset_stats import DatasetStats
from contract.data.provenance import provenance
from contract.errors import InvalidSource, ObjectNotFound
from contract.jobs.lifecycle import Backend
from contract.jobs.specs import EncodedSpec, Interpolate, Reconstruct
from contract.jobs.status import ShardCommit
from worker.engine.images import pixels
from worker.engine.images.decode import decode
from worker.execution.model_cache import Models
from worker.execution.resources import Resources
from worker.generation.archive import Row
from worker.generation.report_page import write_page
from worker.generation.report_rows import read_files
from worker.generation.source_images import SourceImages, make_source_images
from worker.pages import encoded
from worker.pages.encoded import PAIRS, WORST, ClassError, Pairs
from worker.pages.page import Section

_Found = tuple[ShardCommit, Row]


@dataclass
class _Errors:
    """The errors of reconstructions, and the rows to show."""

    of_class: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    first: dict[str, list[_Found]] = field(default_factory=lambda: defaultdict(list))
    worst: list[_Found] = field(default_factory=list)
    left_out: int = 0

    def add(self, commit: ShardCommit, rows: Sequence[Row]) -> None:
        self.left_out += commit.errors
        for row in rows:
            self.of_class[row["label"]].append(row["mse"])
            if len(self.first[row["label"]]) < PAIRS:
                self.first[row["label"]].append((commit, row))
        found = [*self.worst, *((commit, row) for row in rows)]
        self.worst = heapq.nlargest(WORST, found, key=lambda one: one[1]["mse"])

    def first_of_each(self) -> list[_Found]:
        """Return equally many rows of each class, class by class."""
        each = max(1, PAIRS // max(1, len(self.first)))
        return [one for label in sorted(self.first) for one in self.first[label][:each]][:PAIRS]


S = TypeVar("S", Reconstruct, Interpolate)


@dataclass(frozen=True)
class EncodedReport(ABC, Generic[S]):
    """Writes the pages of jobs that encode images."""

    backend: Backend
    models: Models
    source_images: SourceImages
    max_pixels: int

    @abstractmethod
    def draw(self, spec: S) -> tuple[tuple[Section, ...], dict[str, float]]:
        """Return the sections of the page, and the figures that `imagemill show` prints."""

    def write(self, spec: S, _: DatasetStats) -> dict[str, float]:
        """Write the page of a job; return the figures that `imagemill show` prints."""
        sections, figures = self.draw(spec)
        title = f"{provenance(spec).title} by {spec.model}"
        write_page(self.backend.store, spec, title, spec.source.label, sections)
        return figures

    def _pixels(self, spec: EncodedSpec, data: bytes) -> NDArray[np.uint8]:
        """Decode a generated image at the size of the model, which its source image has here too."""
        side = self.models.model(spec.model).preprocess.size
        return decode(data, side, crop=1.0, interpolation="bicubic", max_pixels=self.max_pixels).pixels


@dataclass(frozen=True)
class ReconstructedReport(EncodedReport[Reconstruct]):
    """Writes the pages of reconstruct jobs."""

    def draw(self, spec: Reconstruct) -> tuple[tuple[Section, ...], dict[str, float]]:
        found = _Errors()
        for commit, table in image_index.shards(self.backend.store, spec):
            found.add(commit, table.to_pylist())
        classes = [ClassError(name, len(mse), float(np.mean(mse))) for name, mse in found.of_class.items()]
        errors = np.concatenate([np.array(mse, np.float64) for mse in found.of_class.values()])
        first, worst = found.first_of_each(), found.worst
        source_images = self._read(spec, [*first, *worst])
        files = read_files(self.backend.store, [*first, *worst])
        pairs, largest = (self._pairs(spec, chosen, source_images, files) for chosen in (first, worst))
        mean = float(errors.mean())
        ratio = encoded.psnr(mean)
        figures = {"mse": mean} | ({} if ratio is None else {"psnr": ratio})
        return encoded.reconstruction_sections(pairs, largest, errors, classes, found.left_out), figures

    def _read(self, spec: Reconstruct, wanted: Sequence[_Found]) -> dict[int, NDArray[np.uint8]]:
        """Return the source images of these rows by index, as far as they can still be read."""
        places: dict[int, set[int]] = defaultdict(set)
        for commit, row in wanted:
            places[commit.shard].add(row["index"] - commit.shard * spec.shard_size)
        found: dict[int, NDArray[np.uint8]] = {}
        for shard, asked in places.items():
            ordered = sorted(asked)
            try:
                block = self.source_images.of_shard(spec, shard, ordered)
            except (InvalidSource, ObjectNotFound):
                continue  # the IDX files are gone; the page shows figures and reconstructions without them
            for place, image in zip(block.places, block.images, strict=True):
                found[shard * spec.shard_size + ordered[place]] = pixels.rgb(image[None])[0]
        return found

    def _pairs(
        self,
        spec: Reconstruct,
        chosen: Sequence[_Found],
        source_images: dict[int, NDArray[np.uint8]],
        files: dict[str, bytes],
    ) -> Pairs | None:
        rows = [row for _, row in chosen if row["index"] in source_images]
        if not rows:
            return None
        made = np.stack([self._pixels(spec, files[row["key"]]) for row in rows])
        return Pairs(np.stack([source_images[row["index"]] for row in rows]), made, [row["mse"] for row in rows])


@dataclass(frozen=True)
class InterpolatedReport(EncodedReport[Interpolate]):
    """Writes the pages of interpolate jobs."""

    def draw(self, spec: Interpolate) -> tuple[tuple[Section, ...], dict[str, float]]:
        shown = set(encoded.thinned(spec.steps))
        wanted = [
            (commit, row)
            for commit, table in image_index.shards(self.backend.store, spec)
            for row in table.to_pylist()
            if row["index"] in shown
        ]
        files = read_files(self.backend.store, wanted)
        way = np.stack([self._pixels(spec, files[row["key"]]) for _, row in wanted])
        try:
            ends = pixels.rgb(self.source_images.ends(spec))
        except InvalidSource:
            ends = None
        name = self.models.model(spec.model).labels[spec.classes[0]]
        sections = encoded.interpolation_sections(ends, way, spec.steps, [end.label for end in spec.ends], name)
        return sections, {"steps": float(spec.steps)}


def make_reconstructed_report(resources: Resources) -> Callable[[Reconstruct, DatasetStats], dict[str, float]]:
    """Return the function that writes the pages of reconstruct jobs in this process."""
    return ReconstructedReport(*_shared(resources)).write


def make_interpolated_report(resources: Resources) -> Callable[[Interpolate, DatasetStats], dict[str, float]]:
    """Return the function that writes the pages of interpolate jobs in this process."""
    return InterpolatedReport(*_shared(resources)).write


def _shared(resources: Resources) -> tuple[Backend, Models, SourceImages, int]:
    images, limit = resources.once(make_source_images), resources.settings.max_image_pixels
    return resources.backend, resources.models, images, limit
