"""Exports the images of a job as a dataset in a folder, with its card and its Croissant metadata.

Decides which jobs can be exported and in which order files appear; the registry names the modules that write them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, cast

from contract.backend.objects import ObjectStore
from contract.data.dataset_card import CARD, Layout, card, grown_card
from contract.data.dataset_stats import DatasetStats, count
from contract.data.image_index import shards
from contract.datasets.contents import tables
from contract.datasets.versions import Datasets, Grown, name_of
from contract.errors import JobConflict
from contract.jobs import lifecycle
from contract.jobs.ends import read_end
from contract.jobs.specs import ImagesSpec, Synthesize
from producer.exports.formats import IMAGES, find
from producer.exports.images.accepted import GrownSet, ImageSet
from producer.exports.images.croissant import CROISSANT, DataFile, Records, croissant
from producer.exports.images.target import Target

OnImages = Callable[[int, int], None]
"""Called with the number of images written so far, and the number in all."""


class ImageExporter(Protocol):
    """What a module in `producer.exports.images` provides to be a format."""

    LAYOUT: Layout
    """What the card says of the files."""

    def write(self, images: ImageSet, target: Target, done: Callable[[int], None]) -> list[str]:
        """Write the accepted images, call `done` with the number just written, and return the names of the files."""

    def records(self, spec: ImagesSpec, files: Sequence[DataFile]) -> Records:
        """Say where Croissant finds each column."""


def export(store: ObjectStore, job: str, format: str, folder: Path, progress: OnImages | None = None) -> DatasetStats:
    """Write the accepted images of an ended job into `folder`; return the counts of each class.

    Every file appears under its name once it is complete, `croissant.json` last. Raises JobConflict for a job of
    another kind, one that has not ended or one without images, InvalidInput if there is no such format, the format
    cannot hold these images or the folder has other files, and ObjectDamaged if an object is not what was committed.
    """
    exporter = cast(ImageExporter, find(IMAGES, format).load())
    ref = name_of(job)
    if ref is not None:
        return _export_dataset(store, Datasets(store).grown(ref), exporter, format, folder, progress)
    spec = lifecycle.read_images(store, job)
    end = read_end(store, job)
    if end is None:
        raise JobConflict(f"The job {job} has not ended; follow it with `imagemill follow {job}`, then export it.")
    stats = count(index for _, index in shards(store, spec))
    if not stats.accepted:
        how = "was canceled" if end.state == "canceled" else f"has {end.state}"
        raise JobConflict(f"The job {job} {how} before it had an image; there is nothing to export.")
    created_at = lifecycle.read_created(store, job)
    images = ImageSet(store, spec, stats)
    _write(
        images, exporter, Target(folder, job, format), card(spec, stats, exporter.LAYOUT, end=end), created_at, progress
    )
    return stats


def _export_dataset(
    store: ObjectStore, grown: Grown, exporter: ImageExporter, format: str, folder: Path, progress: OnImages | None
) -> DatasetStats:
    """Write the images of all versions of a dataset."""
    made = cast("Synthesize", lifecycle.read_images(store, grown.newest.job))
    spec = made.model_copy(update={"id": grown.name})
    stats = count(index for _, index in tables(store, grown))
    images = GrownSet(store, spec, stats, grown)
    target = Target(folder, f"dataset:{grown.ref}", format)
    _write(images, exporter, target, grown_card(spec, stats, exporter.LAYOUT, grown), grown.newest.at, progress)
    return stats


def _write(
    images: ImageSet, exporter: ImageExporter, target: Target, text: str, created_at: str, progress: OnImages | None
) -> None:
    spec, stats, written = images.spec, images.stats, 0

    def done(images: int) -> None:
        nonlocal written
        written += images
        if progress is not None:
            progress(written, stats.accepted)

    names = exporter.write(images, target, done)
    target.write(CARD, text.encode())
    files = [target.entry(name) for name in names]
    described = croissant(spec, stats, exporter.records(spec, files), files, created_at=created_at)
    if isinstance(images, GrownSet):
        described["version"] = f"{images.grown.newest.number}.0.0"
    target.write(CROISSANT, json.dumps(described, indent=1, ensure_ascii=False).encode())
